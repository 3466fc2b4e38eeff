import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from ways import ACTORS, STAGES, TASKS

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import LABEL_SCHEMA, ImplicitReward, label_table
from weakteach.labeling.shards import Stream
from weakteach.labeling.stream import stream_chunks
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.sources import WorldSource, file_source
from weakteach.steps.data import Pairs, read_labels
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.training.recipes import DpoRecipe, Lora, Schedule, SftRecipe

BETA = 0.2


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def teacher_of(lora=None):
    model = find_model("opt-45k")
    labels = HumanLabels(Pairs(WorldSource(200, seed=9), (tokenizer_of(model),)).all)
    sft = Sft(model, labels, SftRecipe(Schedule(1e-3, batch=16)), seed=0)
    recipe = DpoRecipe(Schedule(1e-3, batch=16), beta=BETA, lora=lora)
    return Dpo(sft, labels, recipe, seed=0)


def labels_of(store, source, teacher=None, resources=TASKS):
    pairs = Pairs(source, (tokenizer_of(find_model("opt-45k")),))
    step = WeakLabels(teacher or teacher_of(), pairs.all)
    obtain(store, step, resources)
    return pairs.all.read(store), read_labels(store, step)


def devices_at_work(store, source):
    """Of a labeling that is done, by its record."""
    pairs = Pairs(source, (tokenizer_of(find_model("opt-45k")),))
    record = store.record(WeakLabels(teacher_of(), pairs.all))
    assert "devices" not in record["facts"]
    return record["device_seconds"] / record["seconds"]


def plain_reward(policy, reference, tokenizer, prompt, response):
    """The implicit reward of one response, one unpadded sequence at a time."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([[*tokenizer(prompt + response)["input_ids"], tokenizer.eos_token_id]])
    sums = []
    for model in (policy, reference):
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].log_softmax(-1)
        sums.append(logs.gather(-1, ids[0, 1:, None])[start - 1 :].sum().item())
    return BETA * (sums[0] - sums[1])


@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "adapters"])
def test_labels_equal_the_plain_computation(store, ray_here, lora):
    teacher = teacher_of(lora)
    pairs, labels = labels_of(store, WorldSource(30, seed=1), teacher)
    policy = load_causal(weights_of(store, teacher))
    reference = load_causal(weights_of(store, teacher.start))
    tokenizer = load_tokenizer(find_model("opt-45k").location)
    assert labels["pair_id"].to_pylist() == pairs["pair_id"].to_pylist()
    for pair, label in zip(pairs.to_pylist(), labels.to_pylist(), strict=True):
        for side in (1, 2):
            plain = plain_reward(
                policy, reference, tokenizer, pair["prompt"], pair[f"response_{side}"]
            )
            assert label[f"reward_{side}"] == pytest.approx(plain, abs=1e-4)


@pytest.mark.slow
@pytest.mark.ci
def test_tasks_actors_and_stages_give_the_same_rows_and_the_schema_of_a_label(store, ray_here):
    source = WorldSource(1200, seed=2)
    pairs, by_tasks = labels_of(store, source)
    for name, resources in (("actors", ACTORS), ("stages", STAGES)):
        other = Store(Path(store.root, name))
        _, labels = labels_of(other, source, resources=resources)
        assert by_tasks.equals(labels)
        assert devices_at_work(other, source) == 2
    assert devices_at_work(store, source) == 1
    assert by_tasks.schema.equals(LABEL_SCHEMA)
    assert by_tasks["pair_id"].to_pylist() == pairs["pair_id"].to_pylist()
    assert by_tasks.schema.metadata[b"annotator"] == teacher_of().fingerprint.encode()


def test_swapping_chosen_and_rejected_in_the_input_changes_no_label(store, ray_here, tmp_path):
    prompts, first, second = _texts(60)
    kept = {}
    for name, chosen, rejected in (("a", first, second), ("b", second, first)):
        table = pa.table({"prompt": prompts, "chosen": chosen, "rejected": rejected})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        pairs, labels = labels_of(store, file_source(tmp_path / f"{name}.parquet"))
        texts = pairs.to_pylist()
        kept[name] = {
            pair["prompt"]: pair[f"response_{choice}"]
            for pair, choice in zip(texts, labels["choice"].to_pylist(), strict=True)
        }
    assert kept["a"] == kept["b"]


def _texts(count):
    from weakteach.worlds.world import world_pair

    pairs = {p.prompt: p for p in (world_pair(4, i) for i in range(count))}.values()
    return [[getattr(p, n) for p in pairs] for n in ("prompt", "response_1", "response_2")]


def test_a_tie_goes_to_the_second_response():
    table = label_table(["a", "b", "c"], np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]]))
    assert table["choice"].to_pylist() == [2, 1, 2]
    assert table["confidence"].to_pylist()[0] == 0


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=20))
def test_margin_and_confidence_follow_from_the_rewards(rewards):
    table = label_table([str(i) for i in range(len(rewards))], np.array(rewards))
    for row, (one, two) in zip(table.to_pylist(), rewards, strict=True):
        assert row["margin"] == one - two
        assert row["choice"] == (1 if one > two else 2)
        expected = 2 * (1 / (1 + np.exp(-abs(one - two))) - 0.5)
        assert row["confidence"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_names_its_pair(value):
    with pytest.raises(StepError, match="pair b"):
        label_table(["a", "b"], np.array([[0.0, 1.0], [value, 0.0]]))


def test_a_model_that_cannot_be_loaded_is_an_error_that_names_it(store, ray_here, tmp_path):
    pairs = Pairs(WorldSource(40, seed=3), (tokenizer_of(find_model("opt-45k")),))
    obtain(store, pairs)
    gone = replace(find_model("opt-45k"), location=str(tmp_path / "gone"))
    work = ImplicitReward(store, gone, gone, BETA, "float32", 8192)
    stream = Stream(store, pairs.all.file(store), str(tmp_path / "shards"), work)
    with pytest.raises(StepError, match=r"ImplicitReward: .*gone of model opt-45k"):
        stream_chunks(stream, TASKS)


def test_a_pair_too_long_for_the_model_is_named_and_the_others_are_labeled(store, ray_here):
    pairs = Pairs(WorldSource(40, seed=5), (tokenizer_of(find_model("opt-45k")),))
    obtain(store, pairs)
    table = pairs.all.read(store)
    long = pa.array([" ".join(["apple"] * 2000) + " ."], pa.string())
    responses = pa.concat_arrays([table["response_1"].combine_chunks().slice(1), long])
    table = table.set_column(2, "response_1", pa.chunked_array([responses]))
    file = f"{store.root}/long.parquet"
    pq.write_table(table, file)
    teacher = teacher_of()
    obtain(store, teacher)
    work = ImplicitReward(store, teacher, teacher.start, BETA, "float32", 8192)
    stream = Stream(store, file, f"{store.root}/long-shards", work)
    told = []
    shards = stream_chunks(stream, TASKS, lambda *counts: told.append(counts))
    assert shards.write(Path(store.root, "long-labels.parquet")) == {
        "rows": len(table) - 1,
        "quarantined": 1,
        "devices": 1,
    }
    (refused,) = pq.read_table(f"{store.root}/quarantine.parquet").to_pylist()
    assert refused["pair_id"] == table["pair_id"][-1].as_py()
    assert "tokens, and the model reads at most" in refused["reason"]
    assert told[-1][2] > 10 * len(table)  # tokens


def test_a_broken_teacher_stops_its_labeling(store, ray_here, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(find_model("opt-45k").location, folder)
    weights = load_file(folder / "model.safetensors")
    nan = {name: torch.full_like(weight, float("nan")) for name, weight in weights.items()}
    save_file(nan, folder / "model.safetensors", metadata={"format": "pt"})
    pairs = Pairs(WorldSource(40, seed=5), (tokenizer_of(find_model("opt-45k")),))
    obtain(store, pairs)
    broken = find_model(str(folder))
    work = ImplicitReward(store, broken, broken, BETA, "float32", 8192)
    stream = Stream(store, pairs.all.file(store), str(tmp_path / "shards"), work)
    with pytest.raises(StepError, match=r"all \d+ rows of a chunk failed.*are \[nan, nan\]"):
        stream_chunks(stream, TASKS)
