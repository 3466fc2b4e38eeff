import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.data.exceptions import ExecutionTimeoutError
from safetensors.torch import load_file, save_file

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import LostError, StepError
from weakteach.artifacts.store import Store
from weakteach.labeling import stream as stream_module
from weakteach.labeling.annotators import LABEL_SCHEMA, ImplicitReward, label_table
from weakteach.labeling.shards import MAX_SHARDS, ChunkWork, Stream
from weakteach.labeling.stream import stream_chunks
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.sources import WorldSource, file_source
from weakteach.steps.data import Pairs, read_labels
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.training.recipes import DpoRecipe, Lora, Schedule, SftRecipe


class Apart(Resources):
    """As on a GPU: what prepares asks for other resources than what computes, so that Ray Data
    cannot run both in one process."""

    def preparing_options(self):
        return {"num_cpus": 0.5}


TASKS, ACTORS = Resources(), Resources(label_actors=2)
STAGES = Apart(label_actors=2)
FAILS_IN = pytest.mark.parametrize("fails_in", ["prepare", "process"])
# Where it costs much: each way once, each stage once.
WAYS_THAT_DIE = pytest.mark.parametrize(
    ("resources", "fails_in"),
    [
        (TASKS, "process"),
        (ACTORS, "process"),
        (STAGES, "prepare"),
        pytest.param(TASKS, "prepare", marks=pytest.mark.slow),
        pytest.param(ACTORS, "prepare", marks=pytest.mark.slow),
        pytest.param(STAGES, "process", marks=pytest.mark.slow),
    ],
)
PASSING = RuntimeError("a kernel failed"), torch.AcceleratorError("CUDA")
WAYS_THAT_FAIL_ONCE = pytest.mark.parametrize(
    ("resources", "once"),
    [
        (TASKS, PASSING[0]),
        (ACTORS, PASSING[1]),
        (STAGES, PASSING[0]),
        pytest.param(TASKS, PASSING[1], marks=pytest.mark.slow),
        pytest.param(ACTORS, PASSING[0], marks=pytest.mark.slow),
        pytest.param(STAGES, PASSING[1], marks=pytest.mark.slow),
    ],
)
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


@dataclass(frozen=True)
class Count(ChunkWork):
    """Work that notes each chunk that it does, and can be made to die or to fail in one: where it
    is made, or where it is prepared."""

    folder: str
    dies_once_at: int = -1
    poison: tuple[int, ...] = ()
    once: Exception | None = None
    fails_in: str = "process"

    def prepare(self, reader, rows):
        return self._fail(rows) if self.fails_in == "prepare" else rows

    def load(self):
        return None

    def process(self, loaded, rows):
        chunk = self._fail(rows) if self.fails_in == "process" else rows
        with open(Path(self.folder, "done"), "a") as file:
            file.write(f"{chunk['number'][0].as_py()}\n")
        return chunk.append_column("double", pa.array([2 * n for n in chunk["number"].to_pylist()]))

    def _fail(self, chunk):
        first = chunk["number"][0].as_py()
        marker = Path(self.folder, "died")
        if first == self.dies_once_at and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.once and first == 50:
            try:
                Path(self.folder, "raised").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                raise self.once
        bad = set(self.poison).intersection(chunk["number"].to_pylist())
        if bad:
            raise StepError(f"number {min(bad)} is bad")
        return chunk


ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])


def numbers(tmp_path):
    pq.write_table(pa.table({"number": range(100)}), tmp_path / "in.parquet", row_group_size=7)
    return Stream(
        Store(tmp_path),
        str(tmp_path / "in.parquet"),
        str(tmp_path / "shards"),
        Count(str(tmp_path)),
        key="number",
        chunk_rows=10,
    )


def rows_of(shards):
    return pa.concat_tables(shards.tables())


@WAYS_THAT_DIE
def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path, ray_here, resources, fails_in):
    stream = numbers(tmp_path)
    stream = replace(stream, work=replace(stream.work, dies_once_at=50, fails_in=fails_in))
    told = []
    shards = stream_chunks(stream, resources, lambda done, rows, _: told.append((done, rows)))
    table = rows_of(shards)
    assert (tmp_path / "died").exists()
    assert table["number"].to_pylist() == list(range(100))
    assert table["double"].to_pylist() == list(range(0, 200, 2))
    assert told[0] == (0, 100)
    assert told[-1] == (100, 100)


@WAYS_THAT_FAIL_ONCE
def test_an_error_that_does_not_come_again_puts_no_row_in_quarantine(
    tmp_path, ray_here, resources, once
):
    stream = numbers(tmp_path)
    stream = replace(stream, work=replace(stream.work, once=once))
    facts = stream_chunks(stream, resources).write(tmp_path / "out.parquet")
    assert (tmp_path / "raised").exists()
    assert (facts["rows"], facts["quarantined"]) == (100, 0)
    done = (tmp_path / "done").read_text().split()
    assert sorted(done, key=int) == [str(n) for n in range(0, 100, 10)]  # chunks were not cut


def test_an_error_of_the_storage_is_a_loss_of_no_row(tmp_path, ray_here):
    stream = numbers(tmp_path)
    broken = replace(stream, work=replace(stream.work, once=OSError("SlowDown")))
    with pytest.raises(LostError, match="SlowDown"):
        stream_chunks(broken, TASKS)
    facts = stream_chunks(broken, TASKS).write(tmp_path / "out.parquet")
    assert (facts["rows"], facts["quarantined"]) == (100, 0)


class Stalls:
    """A data set that makes no progress after its first row, and goes on when read again."""

    def __init__(self):
        self.read = 0

    def iter_rows(self):
        self.read += 1
        yield {"start": 0}
        if self.read == 1:
            raise ExecutionTimeoutError("no progress")
        yield {"start": 10}


def test_waiting_for_a_device_is_no_failure_and_being_stuck_is_a_loss(tmp_path, ray_here):
    """The Ray of tests has no GPU that might be free."""
    stream, waits = numbers(tmp_path), Stalls()
    rows = stream_module._despite_losses(stream, waits, Resources(gpus=1))
    assert [row["start"] for row in rows] == [0, 10]
    assert waits.read == 2
    with pytest.raises(LostError, match="Count was stuck: no progress"):
        list(stream_module._despite_losses(stream, Stalls(), Resources(cpus=0)))


def test_finished_shards_survive_a_failure_and_are_not_made_again(tmp_path, ray_here):
    stream = numbers(tmp_path)
    bad = replace(stream, work=replace(stream.work, poison=tuple(range(70, 80))))
    with pytest.raises(StepError, match=r"all 10 rows of a chunk failed, .*number 70 is bad"):
        stream_chunks(bad, TASKS)
    before = (tmp_path / "done").read_text().split()
    assert rows_of(stream_chunks(stream, TASKS))["number"].to_pylist() == list(range(100))
    done = (tmp_path / "done").read_text().split()
    assert "70" not in before
    assert sorted(done, key=int) == [str(n) for n in range(0, 100, 10)]
    finished = {path.stem for path in (tmp_path / "shards").iterdir()}
    assert len(finished) == 10


@FAILS_IN
def test_a_poison_row_ends_in_quarantine_and_all_others_are_processed(tmp_path, ray_here, fails_in):
    stream = numbers(tmp_path)
    stream = replace(stream, work=replace(stream.work, poison=(13, 14, 99), fails_in=fails_in))
    facts = stream_chunks(stream, ACTORS).write(tmp_path / "out.parquet")
    assert facts == {"rows": 97, "quarantined": 3, "devices": 2}
    kept = pq.read_table(tmp_path / "out.parquet")
    assert kept["number"].to_pylist() == [n for n in range(100) if n not in (13, 14, 99)]
    assert pq.read_table(tmp_path / "quarantine.parquet").to_pylist() == [
        {"number": str(n), "reason": f"number {n} is bad"} for n in (13, 14, 99)
    ]
    shards = sorted((tmp_path / "shards").iterdir())
    written = [shard.stat().st_mtime_ns for shard in shards]
    assert stream_chunks(stream, ACTORS).write(tmp_path / "out.parquet") == facts
    assert [shard.stat().st_mtime_ns for shard in shards] == written


def test_poison_rows_beyond_their_share_are_an_error_and_are_tried_again(tmp_path, ray_here):
    stream = numbers(tmp_path)
    bad = replace(stream, work=replace(stream.work, poison=(5, 15, 25, 35, 45, 55)))
    with pytest.raises(StepError, match=r"6 of 100 rows failed .*number 55: number 55 is bad"):
        stream_chunks(bad, TASKS)
    shards = stream_chunks(stream, TASKS)
    facts = shards.write(tmp_path / "out.parquet")
    assert facts == {"rows": 100, "quarantined": 0, "devices": 1}
    assert pq.read_table(tmp_path / "out.parquet")["number"].to_pylist() == list(range(100))


def test_an_input_of_one_row_that_fails_is_an_error(tmp_path, ray_here):
    stream = numbers(tmp_path)
    pq.write_table(pa.table({"number": [3]}), stream.input)
    bad = replace(stream, work=replace(stream.work, poison=(3,)))
    with pytest.raises(StepError, match="1 of 1 rows failed"):
        stream_chunks(bad, TASKS)


def test_a_model_that_cannot_be_loaded_is_an_error_that_names_it(store, ray_here, tmp_path):
    pairs = Pairs(WorldSource(40, seed=3), (tokenizer_of(find_model("opt-45k")),))
    obtain(store, pairs)
    gone = replace(find_model("opt-45k"), location=str(tmp_path / "gone"))
    work = ImplicitReward(store, gone, gone, BETA, "float32", 8192)
    stream = Stream(store, pairs.all.file(store), str(tmp_path / "shards"), work)
    with pytest.raises(StepError, match=r"ImplicitReward: .*gone of model opt-45k"):
        stream_chunks(stream, TASKS)


@given(
    rows=st.integers(1, 3_000_000),
    chunk_rows=st.integers(1, 300),
)
def test_shards_are_whole_chunks_and_few(rows, chunk_rows):
    stream = Stream(Store("unused"), "", "", Count(""), chunk_rows=chunk_rows)
    size = stream.shard_rows(rows)
    assert size % chunk_rows == 0
    assert -(-rows // size) <= MAX_SHARDS
    assert size == chunk_rows or -(-rows // (size - chunk_rows)) > MAX_SHARDS


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
