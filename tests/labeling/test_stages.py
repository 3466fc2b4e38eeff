"""A shard goes through two stages, in one process or in two, and comes out whole."""

import errno
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
import torch
from ways import Apart

from weakteach.artifacts.errors import StepError, StorageError
from weakteach.artifacts.store import Store
from weakteach.labeling import stream as stream_module
from weakteach.labeling.shards import ChunkWork, Stream, cut
from weakteach.labeling.stages import make_shards, prepare_shards
from weakteach.labeling.stream import stream_chunks
from weakteach.models.resources import Resources

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def stage_here():
    """Ray names its workers after what they do; those of an actor's several calls take turns."""
    return psutil.Process().cmdline()[0].partition("::")[2].removesuffix(".make")


def with_columns(rows, values):
    for name, value in values.items():
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    return rows


@dataclass(frozen=True)
class Processes(ChunkWork):
    """Tells in which stages a row was prepared and processed, and fails as it is told."""

    size: int = 0
    unreadable: tuple[int, ...] = ()
    unmakeable: tuple[int, ...] = ()
    broken: Exception | None = None
    unloadable: Exception | None = None

    def prepare(self, reader, rows):
        if self.broken:
            raise self.broken
        self._refuse(rows, self.unreadable, "read")
        return with_columns(rows, {"payload": b"x" * self.size, "reader": stage_here()})

    def load(self):
        if self.unloadable:
            raise self.unloadable from self.unloadable.__cause__

    def process(self, loaded, rows):
        self._refuse(rows, self.unmakeable, "made")
        assert {len(value) for value in rows["payload"].to_pylist()} == {self.size}
        added = {"maker": stage_here(), "together": len(rows)}
        return with_columns(rows.drop_columns("payload"), added)

    def _refuse(self, rows, bad, what):
        if found := set(bad).intersection(rows["number"].to_pylist()):
            raise StepError(f"number {min(found)} cannot be {what}")


@dataclass(frozen=True)
class Ahead(ChunkWork):
    """Prepares shards of a size, and processes the first one when no more are prepared; tells how
    many were by then."""

    folder: str
    size: int

    def prepare(self, reader, rows):
        Path(self.folder, f"prepared-{rows['number'][0].as_py()}").touch()
        return with_columns(rows, {"payload": b"x" * self.size})

    def load(self):
        return None

    def process(self, loaded, rows):
        seen, since = -1, time.monotonic()
        while not (told := Path(self.folder, "told")).exists():
            if (now := len(list(Path(self.folder).glob("prepared-*")))) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > 3:
                told.write_text(str(seen))
            time.sleep(0.05)
        return rows.drop_columns("payload")


def numbers(tmp_path, work, rows=60, chunk_rows=10):
    pq.write_table(pa.table({"number": range(rows)}), tmp_path / "in.parquet", row_group_size=7)
    return Stream(
        Store(tmp_path),
        str(tmp_path / "in.parquet"),
        str(tmp_path / "shards"),
        work,
        key="number",
        chunk_rows=chunk_rows,
    )


def rows_of(stream, resources):
    return pa.concat_tables(stream_chunks(stream, resources).tables())


def both(stream, *shards):
    """What the stages make of shards in this process, without Ray."""
    stream.store.filesystem.create_dir(stream.shards, recursive=True)
    asked = pa.table({"start": [s.start for s in shards], "stop": [s.stop for s in shards]})
    prepared = list(prepare_shards(asked, stream))
    assert [len(row) for row in prepared] == [1] * len(shards)
    return [make_shards(row, stream, 1).to_pylist()[0] for row in prepared]


def test_rows_are_refused_in_either_stage_with_their_reasons(tmp_path):
    stream = numbers(tmp_path, Processes(unreadable=(3, 7), unmakeable=(4, 25)), rows=100)
    stream.store.filesystem.create_dir(stream.shards, recursive=True)
    made = both(stream, *cut(stream, 8192))
    assert [(row["rows"], row["quarantined"]) for row in made[:4]] == [
        (7, 3), (10, 0), (9, 1), (10, 0),
    ]  # fmt: skip
    assert {row["error"] for row in made} == {""}
    resumed = stream_chunks(stream, Resources())  # all shards are there: no Ray is asked
    facts = resumed.write(tmp_path / "out.parquet")
    assert (facts["rows"], facts["quarantined"]) == (96, 4)
    refused = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    assert [(row["number"], row["reason"]) for row in refused] == [
        ("3", "number 3 cannot be read"),
        ("7", "number 7 cannot be read"),
        ("4", "number 4 cannot be made"),
        ("25", "number 25 cannot be made"),
    ]
    kept = pq.read_table(tmp_path / "out.parquet")["number"].to_pylist()
    assert kept == [n for n in range(100) if n not in (3, 4, 7, 25)]


def test_a_shard_of_one_row_that_cannot_be_prepared_is_all_quarantine(tmp_path):
    stream = numbers(tmp_path, Processes(unreadable=(1,)), rows=3, chunk_rows=1)
    rows = both(stream, *cut(stream, 8192))
    assert [(row["rows"], row["quarantined"]) for row in rows] == [(1, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("error", "passes"), [(OSError("SlowDown"), True), (StepError("no tokenizer"), False)]
)
def test_what_preparing_fails_with_is_handed_on(tmp_path, error, passes):
    stream = numbers(tmp_path, Processes(broken=error))
    (row,) = both(stream, range(10))
    assert str(error) in row["error"]
    assert row["passes"] == passes
    assert not list((tmp_path / "shards").glob("*.parquet"))


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (caused(StorageError("bucket"), OSError("SlowDown")), True),
        (caused(StorageError("bucket"), PermissionError("no")), False),
        (StorageError("no such store"), False),
    ],
    ids=["passing", "forbidden", "lasting"],
)
def test_a_storage_that_does_not_answer_as_models_are_loaded_passes(tmp_path, error, passes):
    (row,) = both(numbers(tmp_path, Processes(unloadable=error)), range(10))
    assert (row["error"], row["passes"]) == (str(error), passes)


def test_a_device_without_memory_is_no_fault_of_rows_and_names_the_remedy(tmp_path):
    """Not even of a pair that is at work alone."""
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more.")
    for chunk_rows in (1, 10):
        stream = numbers(tmp_path, Processes(broken=full), rows=10, chunk_rows=chunk_rows)
        row = both(stream, *cut(stream, 8192))[0]
        assert (row["quarantined"], row["passes"]) == (0, False)
        assert row["error"].startswith("the device has no memory for a batch: lower --batch-tokens")
        assert row["error"].endswith("(CUDA out of memory. Tried to allocate 2 GiB.)")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stays_full_and_is_no_fault_of_rows(tmp_path, number):
    full = OSError(number, os.strerror(number))
    (row,) = both(numbers(tmp_path, Processes(broken=full)), range(10))
    assert (row["error"], row["quarantined"], row["passes"]) == (str(full), 0, False)


def test_a_shard_that_is_there_is_not_made_again(tmp_path):
    stream = numbers(tmp_path, Processes())
    (first,) = both(stream, range(10))
    (before,) = (tmp_path / "shards").iterdir()
    time_of = before.stat().st_mtime_ns
    unable = replace(stream, work=Processes(unmakeable=tuple(range(10))))
    (second,) = both(unable, range(10))
    assert (second["rows"], second["error"]) == (first["rows"], "")
    assert before.stat().st_mtime_ns == time_of


def test_rows_of_a_shard_of_several_chunks_are_processed_together(tmp_path, monkeypatch):
    monkeypatch.setattr("weakteach.labeling.shards.MAX_SHARDS", 2)
    stream = numbers(tmp_path, Processes(unmakeable=(45,)))
    assert cut(stream, 8192) == [range(30), range(30, 60)]
    both(stream, *cut(stream, 8192))
    together = pa.concat_tables(stream_chunks(stream, Resources()).tables())["together"]
    # The shard that fails is cut into chunks, and the chunk that fails into halves.
    assert together.to_pylist() == [30] * 30 + [10] * 10 + [5] * 5 + [1] + [3] * 3 + [10] * 10


PREPARE, MAKE = (f"MapBatches({name})" for name in ("prepare_shards", "make_shards"))
RELAY, ACTOR = "MapBatches(relay_shards)", "Holder"


@pytest.mark.parametrize(
    ("resources", "stage"),
    [
        (Resources(), f"{PREPARE}->{MAKE}"),
        (Resources(label_actors=2), ACTOR),
        (Resources(label_actors=1, label_actors_max=2), ACTOR),
    ],
    ids=["tasks", "actors", "growing"],
)
def test_on_cpus_what_makes_a_shard_prepares_it(tmp_path, ray_here, resources, stage):
    rows = rows_of(numbers(tmp_path, Processes()), resources)
    assert rows["number"].to_pylist() == list(range(60))
    assert {*rows["reader"].to_pylist(), *rows["maker"].to_pylist()} == {stage}


@pytest.mark.parametrize(
    ("resources", "reader", "maker"),
    [(Apart(), PREPARE, MAKE), (Apart(label_actors=2), RELAY, ACTOR)],
    ids=["tasks", "actors"],
)
@pytest.mark.parametrize("size", [0, 1 << 18], ids=["small", "larger than a block"])
def test_stages_apart_hand_on_whole_shards(tmp_path, ray_here, resources, reader, maker, size):
    """Small shards travel together in a block, and one of 2.5 MiB goes in a block of its own."""
    shards = stream_chunks(numbers(tmp_path, Processes(size)), resources)
    rows = pa.concat_tables(shards.tables())
    assert rows["number"].to_pylist() == list(range(60))
    assert set(rows["reader"].to_pylist()) == {reader}
    assert set(rows["maker"].to_pylist()) == {maker}
    assert rows["together"].to_pylist() == [10] * 60
    assert shards.busy.rows == 60
    assert shards.busy.preparing > 0
    assert shards.busy.making > 0


@pytest.mark.slow
@pytest.mark.ci
def test_preparing_runs_ahead_by_some_shards_and_no_more(tmp_path, ray_here, monkeypatch):
    monkeypatch.setattr(stream_module, "AHEAD_BYTES", 16 << 20)
    stream = numbers(tmp_path, Ahead(str(tmp_path), 1 << 18), rows=600)
    assert rows_of(stream, Apart(label_actors=1))["number"].to_pylist() == list(range(600))
    ahead = int((tmp_path / "told").read_text())
    assert 1 < ahead < 30  # of 60 shards of 2.5 MiB


def test_what_prepares_asks_for_a_cpu_of_its_own_where_there_is_a_device():
    alone, beside = Resources(cpus=4), Resources(cpus=4, gpus=0.5)
    assert alone.preparing_options() == alone.device_options() == {"num_cpus": 4}
    assert beside.device_options() == {"num_cpus": 4, "num_gpus": 0.5}
    assert beside.preparing_options() == {"num_cpus": 1}
