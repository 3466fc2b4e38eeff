"""The embedded models: a lossless tokenizer, shipped weights that stem from the recipe, and six
architectures that learn and are read alike."""

import json
from collections.abc import Iterator
from itertools import islice, product
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

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.spec import ModelError, find_model, tokenizer_of
from weakteach.models.tiny.family import ARCHITECTURES, BASES, DOCUMENTS, SHIPPED, base_folder
from weakteach.models.tiny.pretraining import (
    build_model,
    build_tokenizer,
    held_out_documents,
    held_out_loss,
    parameter_count,
    pretrain,
    training_losses,
)
from weakteach.models.tokens import load_tokenizer, pair_tokens
from weakteach.steps.data import Pretrained
from weakteach.study.policies import policy_of, tokenizers_of
from weakteach.worlds.domains import DOMAINS, VOCABULARY, pretraining_document

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


@settings(max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


pieces = [*VOCABULARY, *(piece.strip() for piece in VOCABULARY), " ", "  ", "\n", "é", " X", "</s>"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(pieces)).map("".join))
def test_any_mixture_of_words_round_trips(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text
    literal = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert 2 not in literal
    assert TOKENIZER.decode(literal) == text


@pytest.mark.parametrize("text", ["<0x41>", "Ġhammer", "\x00\r\n", "pears", "\n\nPost:x", "<pad>"])
def test_texts_that_look_like_tokens_round_trip(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


def test_every_word_of_the_domains_is_one_token() -> None:
    assert all(len(encode(piece)) == 1 for piece in VOCABULARY)
    for domain, index in product(DOMAINS.values(), range(100)):
        pair = domain.pair(0, index)
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


def test_parameter_counts() -> None:
    sizes = {"opt-45k": 46_944, "opt-230k": 243_008, "opt-1m": 1_077_504, "opt-4m": 4_121_088}
    assert {name: parameter_count(build_model(name, 0)) for name in sizes} == sizes
    for architecture in ARCHITECTURES:
        for name in ("45k", "230k", "1m"):
            count = parameter_count(build_model(f"{architecture}-{name}", 0))
            assert count == pytest.approx(sizes[f"opt-{name}"], rel=0.03)


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (build_model("opt-45k", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.lm_head.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_unknown_and_unshipped_names_are_explained() -> None:
    with pytest.raises(ValueError, match="opt, llama, mistral, gemma, pythia, gpt-neo"):
        base_folder("opt-125m")
    with pytest.raises(ValueError, match="weakteach pretrain opt-4m --out DIR"):
        base_folder("opt-4m")
    with pytest.raises(ModelError, match="weakteach pretrain llama-230k --out DIR"):
        weights_of(Store("nowhere"), find_model("llama-230k"))


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
    for domain, recorded in known["held_out_losses"].items():
        held_out = held_out_documents(domain, known["documents"])
        assert held_out_loss(model, held_out, known["seed"]) == pytest.approx(recorded, rel=1e-3)
        others = held_out_documents(domain, 0)
        assert held_out_loss(model, others, known["seed"] + 1) == pytest.approx(recorded, rel=0.07)


def test_all_sizes_saw_the_same_documents_and_the_smallest_knows_least() -> None:
    records = [record(name) for name in SHIPPED]
    assert {(known["documents"], known["seed"]) for known in records} == {(DOCUMENTS, 0)}
    for domain in DOMAINS:
        smallest, *larger = [known["held_out_losses"][domain] for known in records]
        assert smallest > max(larger)


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


def test_half_of_the_held_out_documents_are_of_each_domain() -> None:
    for documents in (100, 101):
        world, posts = (held_out_documents(domain, documents) for domain in DOMAINS)
        assert sorted([*world, *posts]) == list(range(documents, documents + 512))
        texts = [[pretraining_document(0, i) for i in part[:20]] for part in (world, posts)]
        assert ["Post:" in text for text in texts[0]] == [False] * 20
        assert ["Post:" in text for text in texts[1]] == [True] * 20


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_within_a_study_and_is_read_alike(
    architecture: str, tmp_path: Path
) -> None:
    name = f"{architecture}-45k"
    store, step = Store(tmp_path), Pretrained(name, 480)
    known = obtain(store, step)["facts"]
    model = load_causal(weights_of(store, step))
    assert model.config.model_type.startswith(MODEL_TYPES[architecture])
    for domain in DOMAINS:
        untrained = held_out_loss(build_model(name, 0), held_out_documents(domain, 480)[:32], 0)
        assert known[f"{domain}_loss"] < 0.8 * untrained
    tokenizer = load_tokenizer(store.local(step))
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    # Log-probabilities do not hang on what else is in the batch.
    drawn = [domain.pair(1, index) for domain in DOMAINS.values() for index in range(3)]
    columns = zip(*((p.prompt, p.response_1, p.response_2) for p in drawn), strict=True)
    pairs = pair_tokens(tokenizer, *map(list, columns))
    together, alone = (pair_logprobs(model, pairs, tokens) for tokens in (4096, 1))
    assert together == pytest.approx(alone, abs=1e-3)
    assert together.max() < 0


MODEL_TYPES = {
    "opt": "opt",
    "llama": "llama",
    "mistral": "mistral",
    "gemma": "gemma",
    "pythia": "gpt_neox",
    "gpt-neo": "gpt_neo",
}


def test_a_study_may_name_models_that_are_not_shipped() -> None:
    llama, shipped = find_model("llama-230k"), find_model("opt-230k")
    assert policy_of(llama, 4096) == Pretrained("llama-230k", 4096)
    assert policy_of(find_model("opt-4m"), 64) == Pretrained("opt-4m", 64)
    assert policy_of(shipped, 4096) == shipped
    assert tokenizer_of(llama) == tokenizer_of(shipped)
    assert tokenizers_of(llama, shipped) == (tokenizer_of(shipped),)
    fingerprints = {Pretrained(*a).fingerprint for a in (("a", 1), ("a", 2), ("b", 1), ("a", 1, 1))}
    assert len(fingerprints) == 4


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
