"""The tiny OPT family: a lossless tokenizer, and shipped weights that stem from the recipe."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from weakteach.models.embedded import (
    HELD_OUT_DOCUMENTS,
    build_model,
    build_tokenizer,
    held_out_loss,
    parameter_count,
    pretrain,
    training_losses,
)
from weakteach.models.family import BASES, FAMILY, base_folder
from weakteach.preferences.world import world_pair
from weakteach.preferences.world_words import WORLD_VOCABULARY as VOCABULARY

SHIPPED = ("opt-45k", "opt-230k", "opt-1m")
TOKENIZER = build_tokenizer()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encode(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def record(name: str) -> dict:
    return json.loads((base_folder(name) / "pretrain.json").read_text())


# ---- Tokenizer ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


pieces = [*VOCABULARY, *(piece.strip() for piece in VOCABULARY), " ", "  ", "\n", "é", " X", "</s>"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(pieces)).map("".join))
def test_any_mixture_of_words_round_trips(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text
    literal = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert 2 not in literal
    assert TOKENIZER.decode(literal) == text


@pytest.mark.parametrize("text", ["<0x41>", "Ġhammer", "\x00\r\n", "pears", "\n\nHuman:x", "<pad>"])
def test_texts_that_look_like_tokens_round_trip(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


def test_every_word_of_the_world_is_one_token() -> None:
    assert all(len(encode(piece)) == 1 for piece in VOCABULARY)
    for index in range(200):
        pair = world_pair(0, index)
        text = pair.prompt + pair.response_1
        assert len(encode(text)) == len(text.split())
        # The tokens of a transcript are those of its parts.
        assert encode(text) == encode(pair.prompt) + encode(pair.response_1)


def test_special_tokens_are_those_of_opt() -> None:
    assert (TOKENIZER.bos_token, TOKENIZER.eos_token, TOKENIZER.pad_token) == (
        "</s>",
        "</s>",
        "<pad>",
    )
    assert (TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id) == (2, 2, 1)
    assert TOKENIZER(" hammer")["input_ids"] == [2, *encode(" hammer")]
    assert set(TOKENIZER(" hammer")) == {"input_ids", "attention_mask"}
    assert encode(" hammer </s>")[-1] == 2


# ---- Models -------------------------------------------------------------------------------------


def test_parameter_counts_of_the_family() -> None:
    counts = {name: parameter_count(build_model(name, 0)) for name in FAMILY}
    assert counts == {
        "opt-45k": 44_064,
        "opt-230k": 237_248,
        "opt-1m": 1_065_984,
        "opt-4m": 4_098_048,
    }


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (build_model("opt-45k", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.lm_head.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_unknown_and_unshipped_names_are_explained() -> None:
    with pytest.raises(ValueError, match="opt-45k, opt-230k, opt-1m, opt-4m"):
        base_folder("opt-125m")
    with pytest.raises(ValueError, match="weakteach pretrain opt-4m --out DIR"):
        base_folder("opt-4m")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_folder_loads_like_any_model(name: str) -> None:
    folder = base_folder(name)
    assert folder == BASES / name
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, OPTForCausalLM)
    assert model.dtype == torch.float32
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    for text in ("\n\nHuman: hello .\n\nAssistant: apple .", " pears </s> é", "  x"):
        assert tokenizer(text)["input_ids"] == TOKENIZER(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == "</s>" + text
    assert model.generation_config.eos_token_id == 2
    assert model.config.dropout == model.config.attention_dropout == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_begin_as_the_recipe_does(name: str) -> None:
    """The recipe, run again for its first steps, gives the losses that were recorded."""
    known = record(name)
    model = build_model(name, known["seed"])
    losses = training_losses(model, name, known["documents"], known["seed"])
    again = list(islice(losses, 20))
    assert again == pytest.approx(known["first_losses"][: len(again)], rel=5e-3)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_those_that_were_recorded(name: str) -> None:
    known = record(name)
    model = OPTForCausalLM.from_pretrained(base_folder(name))
    assert parameter_count(model) == known["parameters"]
    first = known["documents"]
    loss = held_out_loss(model, range(first, first + HELD_OUT_DOCUMENTS), known["seed"])
    assert loss == pytest.approx(known["held_out_loss"], rel=1e-3)
    assert held_out_loss(model, range(256), known["seed"] + 1) == pytest.approx(loss, rel=0.05)


def test_all_sizes_saw_the_same_documents_and_larger_is_better() -> None:
    records = [record(name) for name in SHIPPED]
    assert {(known["documents"], known["seed"]) for known in records} == {(65536, 0)}
    losses = [known["held_out_loss"] for known in records]
    assert losses == sorted(losses, reverse=True)


# ---- Pretraining --------------------------------------------------------------------------------


def test_pretraining_is_repeatable_and_reports_its_steps(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    state = torch.get_rng_state()
    pretrain("opt-45k", tmp_path / "one", 200, 5, lambda done, all_, _: steps.append((done, all_)))
    pretrain("opt-45k", tmp_path / "two", 200, 5)
    assert steps == [(done, 13) for done in range(1, 14)]
    assert torch.equal(torch.get_rng_state(), state)
    files = {file.name for file in (tmp_path / "one").iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "pretrain.json"}
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    known = json.loads((tmp_path / "one" / "pretrain.json").read_text())
    assert known["final_loss"] < known["first_losses"][0]
    assert len(known["first_losses"]) == 13
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one", "two"]


def test_a_failed_pretraining_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain("opt-45k", tmp_path / "out", 32, on_step=stop)
    assert not list(tmp_path.iterdir())


def test_pretraining_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="already exists"):
        pretrain("opt-45k", tmp_path / "out")
    with pytest.raises(ValueError, match="at least one"):
        pretrain("opt-45k", tmp_path / "other", 0)
