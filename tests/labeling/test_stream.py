"""Rows in shards through tasks, actors and stages that die, fail and wait."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.cloudpickle
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.data.exceptions import ExecutionTimeoutError
from ways import ACTORS, STAGES, TASKS

from weakteach.artifacts.errors import LostError, StepError
from weakteach.artifacts.store import Store
from weakteach.labeling import stream as stream_module
from weakteach.labeling.shards import MAX_SHARDS, ROW_TOKENS, ChunkWork, Stream, quarantined_in
from weakteach.labeling.stream import stream_chunks
from weakteach.models import room
from weakteach.models.resources import Resources

ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])

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


PASSING = (RuntimeError, "a kernel failed"), (torch.AcceleratorError, "CUDA")


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


@dataclass(frozen=True)
class Count(ChunkWork):
    """Work that notes each chunk that it does, and can be made to die or to fail in one: where it
    is made, or where it is prepared."""

    folder: str
    dies_once_at: int = -1
    poison: tuple[int, ...] = ()
    once: tuple[type[Exception], str] | None = None
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
                kind, said = self.once
                raise kind(said)
        bad = set(self.poison).intersection(chunk["number"].to_pylist())
        if bad:
            raise StepError(f"number {min(bad)} is bad")
        return chunk


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
    shards = stream_chunks(stream, resources, lambda done, rows, *_: told.append((done, rows)))
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
    # No chunk was cut. One that was done but not told when its worker failed may be done again.
    assert sorted(set(done), key=int) == [str(n) for n in range(0, 100, 10)]


def test_an_error_of_the_storage_is_a_loss_of_no_row(tmp_path, ray_here):
    stream = numbers(tmp_path)
    broken = replace(stream, work=replace(stream.work, once=(OSError, "SlowDown")))
    with pytest.raises(LostError, match="SlowDown"):
        stream_chunks(broken, TASKS)
    facts = stream_chunks(broken, TASKS).write(tmp_path / "out.parquet")
    assert (facts["rows"], facts["quarantined"]) == (100, 0)


@dataclass(frozen=True)
class FailsWhileAnotherRuns(Count):
    """The first number fails once a late one is at work, which is done once the stream has ended.
    Those between pass, so that late numbers are of other hand-outs."""

    def _fail(self, chunk):
        first = chunk["number"][0].as_py()
        running = Path(self.folder, "running")
        if first >= 10:
            running.touch()
            wait_until(lambda: list(Path(self.folder, "shards").glob(".*.ended")))
        elif first == 0:
            wait_until(running.exists)
            raise OSError("SlowDown")
        return chunk


def wait_until(is_so):
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < 60, "it does not come"
        time.sleep(0.02)


def test_a_stream_that_fails_ends_what_it_began_and_begins_no_more(tmp_path, ray_here):
    stream = replace(numbers(tmp_path), chunk_rows=1, work=FailsWhileAnotherRuns(str(tmp_path)))
    with pytest.raises(LostError, match="SlowDown"):
        stream_chunks(stream, Resources(label_tasks=2))
    done = (tmp_path / "done").read_text().split()
    assert any(int(n) >= 10 for n in done)
    assert len(done) < 30
    left = {path.name for path in (tmp_path / "shards").iterdir()}
    assert left == {f"{int(n):09d}-{int(n) + 1:09d}.parquet" for n in done}


class Stalls:
    """A data set that makes no progress after its first table, and goes on when read again."""

    def __init__(self):
        self.read = 0

    def iter_batches(self, **options):
        self.read += 1
        yield pa.table({"start": [0]})
        if self.read == 1:
            raise ExecutionTimeoutError("no progress")
        yield pa.table({"start": [10]})


def test_waiting_for_a_device_is_no_failure_and_being_stuck_is_a_loss(tmp_path, ray_here):
    """The Ray of tests has no GPU that might be free."""
    stream, waits = numbers(tmp_path), Stalls()
    rows = stream_module._despite_losses(stream, waits, Resources(gpus=1))
    assert [row["start"] for row in rows] == [0, 10]
    assert waits.read == 2
    with pytest.raises(LostError, match="Count was stuck: no progress"):
        list(stream_module._despite_losses(stream, Stalls(), Resources(cpus=0)))


def test_what_waits_for_a_device_says_so_until_it_has_it(tmp_path, ray_here, monkeypatch):
    """Something else has all of the cluster until it is told that labeling waits."""
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.1)
    stream, told, taken = numbers(tmp_path), [], tmp_path / "taken"

    @ray.remote(num_cpus=ray.cluster_resources()["CPU"])
    def hog():
        taken.touch()
        while taken.exists():
            time.sleep(0.02)

    busy = hog.remote()
    while not taken.exists():
        time.sleep(0.02)

    def progress(done, total, tokens=0, waits=False):
        told.append((done, total, waits))
        if waits:
            taken.unlink(missing_ok=True)

    stream_chunks(stream, TASKS, progress)
    ray.get(busy)
    assert told[:2] == [(0, 100, False), (0, 100, True)]
    assert (told[-1], told.count((0, 100, True))) == ((100, 100, False), sum(w for *_, w in told))
    assert not list((tmp_path / "shards").glob(".*"))


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
    assert facts.pop("devices") in (1, 2)  # an actor that starts late may find nothing left
    assert facts == {"rows": 97, "quarantined": 3}
    kept = pq.read_table(tmp_path / "out.parquet")
    assert kept["number"].to_pylist() == [n for n in range(100) if n not in (13, 14, 99)]
    assert pq.read_table(tmp_path / "quarantine.parquet").to_pylist() == [
        {"number": str(n), "reason": f"number {n} is bad"} for n in (13, 14, 99)
    ]
    shards = sorted((tmp_path / "shards").iterdir())
    written = [shard.stat().st_mtime_ns for shard in shards]
    again = stream_chunks(stream, ACTORS).write(tmp_path / "out.parquet")
    assert again == {**facts, "devices": 1}
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


def test_rows_that_failed_are_counted_as_they_come_and_again_when_all_shards_are_there(
    tmp_path, ray_here, monkeypatch
):
    stream, read = numbers(tmp_path), []
    bad = replace(stream, work=replace(stream.work, poison=(5, 15, 25, 35, 45)))

    def reasons(of, shard):
        read.append(shard)
        return quarantined_in(of, shard)

    monkeypatch.setattr(stream_module, "quarantined_in", reasons)
    facts = stream_chunks(bad, TASKS).write(tmp_path / "out.parquet")
    assert (facts["quarantined"], read) == (5, [])
    # As if killed before the last shards that failed were looked at.
    monkeypatch.setattr(stream_module, "QUARANTINE_SHARE", 0.04)
    with pytest.raises(StepError, match=r"5 of 100 rows failed .*number 45: number 45 is bad"):
        stream_chunks(bad, TASKS)
    assert len(read) == 10 + 1  # each once, and the last for its reason
    assert stream_chunks(stream, TASKS).write(tmp_path / "out.parquet")["quarantined"] == 0


def test_an_input_of_one_row_that_fails_is_an_error(tmp_path, ray_here):
    stream = numbers(tmp_path)
    pq.write_table(pa.table({"number": [3]}), stream.input)
    bad = replace(stream, work=replace(stream.work, poison=(3,)))
    with pytest.raises(StepError, match="1 of 1 rows failed"):
        stream_chunks(bad, TASKS)


@given(
    rows=st.integers(1, 3_000_000),
    chunk_rows=st.integers(1, 300),
)
def test_shards_are_whole_chunks_and_few(rows, chunk_rows):
    stream = Stream(Store("unused"), "", "", Count(""), chunk_rows=chunk_rows)
    size = stream.shard_rows(rows, ROW_TOKENS * chunk_rows)
    assert size % chunk_rows == 0
    assert -(-rows // size) <= MAX_SHARDS
    assert size == chunk_rows or -(-rows // (size - chunk_rows)) > MAX_SHARDS


@pytest.mark.parametrize(
    ("rows", "batch_tokens", "expected"),
    [
        (80_000, 8192, 128),
        (80_000, 32_768, 512),
        (20_000, 32_768, 256),  # 512 would leave 40 shards
        (2_000, 32_768, 128),
        (1_000_000, 8192, 1024),  # at most 1,024 shards
        (1_000_000, 4096, 1024),
    ],
)
def test_a_shard_holds_a_large_batch_where_enough_of_them_stay(rows, batch_tokens, expected):
    stream = Stream(Store("unused"), "", "", Count(""))
    assert stream.shard_rows(rows, batch_tokens) == expected
