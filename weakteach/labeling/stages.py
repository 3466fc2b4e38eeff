"""The two stages of a stream, as Ray Data's tasks and actors run them: prepare, and make.

A shard is one row of Ray Data, and its prepared rows are bytes within it: Ray Data joins and splits
blocks of rows as their sizes ask for, and never cuts a row. An error is a value of such a row, too,
since Ray Data would lose what lies below its own message.
"""

import logging
import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from ray.util import metrics

from weakteach.artifacts.errors import passes
from weakteach.artifacts.signs import Sign
from weakteach.labeling.shards import (
    ChunkWork,
    Made,
    Stream,
    found_shard,
    make_shard,
    prepare_shard,
)

LOGGER = logging.getLogger(__name__)
DEVICE_FAILED = 70  # exit code of a worker; EX_SOFTWARE


def prepare_shards(batch: pa.Table, stream: Stream) -> Iterator[pa.Table]:
    """Read and prepare the shards of the batch (``start, stop``), each of them a row:
    ``start, stop, prepared, preparing``, in seconds, and ``error, passes``, if it failed."""
    for start, stop in zip(batch["start"].to_pylist(), batch["stop"].to_pylist(), strict=True):
        began, prepared, failure = time.perf_counter(), None, NO_FAILURE
        try:
            reader = _loaded(stream.work, "load_reader")
            prepared = _as_bytes(prepare_shard(stream, reader, range(start, stop)))
        except Exception as error:
            LOGGER.exception("rows %d to %d of %s", start, stop, stream.input)
            failure = _failure(error)
        seconds = time.perf_counter() - began
        if prepared is not None:
            _count("prepare", stream.work, seconds, stop - start)
        yield _row(start=start, stop=stop, prepared=_cell(prepared), preparing=seconds, **failure)


class ShardActor:
    """A Ray Data actor; the models of the work stay in its process."""

    def __init__(self, stream: Stream, threads: int) -> None:
        self._stream, self._threads = stream, threads

    def __call__(self, batch: pa.Table) -> pa.Table:
        return make_shards(batch, self._stream, self._threads)


def make_shards(batch: pa.Table, stream: Stream, threads: int) -> pa.Table:
    """Make a prepared shard, the one row of the batch: ``start, stop, rows, quarantined, tokens``,
    ``preparing, making`` in seconds, and ``error, passes``, if it failed."""
    import torch  # in workers only, as below

    from weakteach.models.process import prepare_process

    prepare_process(threads)
    (row,) = batch.select(["start", "stop", "preparing", *NO_FAILURE]).to_pylist()
    shard, made = range(row["start"], row["stop"]), Made(0, 0, 0)
    began = time.perf_counter()
    if not row["error"]:
        try:
            if stream.sign:
                _put_once(stream.sign)
            if found := found_shard(stream, shard):
                made = found
            else:
                prepared = _from_cell(batch["prepared"][0])
                made = make_shard(stream, _loaded(stream.work, "load"), shard, prepared)
                _count("make", stream.work, time.perf_counter() - began, len(shard), made)
        except Exception as error:
            LOGGER.exception("rows %d to %d of %s", shard.start, shard.stop, stream.input)
            if isinstance(error, torch.AcceleratorError):
                os._exit(DEVICE_FAILED)  # this process can use its device no more
            row |= _failure(error)
    return _row(**row, **vars(made), making=time.perf_counter() - began)


@cache
def _put_once(sign: Sign) -> None:
    """In each process; a stream that begins anew has another sign."""
    sign.put()


NO_FAILURE: dict[str, Any] = {"error": "", "passes": False}


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": str(error) or type(error).__name__, "passes": passes(error)}


def _row(**columns: Any) -> pa.Table:
    return pa.table(
        {
            name: value if isinstance(value, pa.Array) else pa.array([value])
            for name, value in columns.items()
        }
    )


def _as_bytes(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _cell(content: pa.Buffer | None) -> pa.Array:
    """A column of one row, without a copy of its content."""
    if content is None:
        return pa.nulls(1, pa.large_binary())
    ends = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, content])


def _from_cell(cell: pa.LargeBinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(cell.as_buffer()).read_all()


_LOADED: dict[tuple[ChunkWork, str], Any] = {}


def _loaded(work: ChunkWork, load: Literal["load_reader", "load"]) -> Any:
    """What one step needs is loaded once in each process, which Ray reuses; what was loaded for the
    step before is let go first."""
    if (work, load) not in _LOADED:
        for other in [key for key in _LOADED if key[0] != work]:
            del _LOADED[other]
        _LOADED[work, load] = getattr(work, load)()
    return _LOADED[work, load]


@cache
def _counters() -> dict[str, metrics.Counter]:
    """Made once in each process."""
    return {
        "rows": metrics.Counter("weakteach_pairs_total", "Rows processed", ("work",)),
        "quarantined": metrics.Counter(
            "weakteach_quarantined_total", "Rows that failed", ("work",)
        ),
        "tokens": metrics.Counter("weakteach_tokens_total", "Tokens read by models", ("work",)),
        "staged": metrics.Counter(
            "weakteach_stage_rows_total", "Rows that went through a stage", ("work", "stage")
        ),
        "busy": metrics.Counter(
            "weakteach_stage_seconds_total", "Seconds at work in a stage", ("work", "stage")
        ),
    }


def _count(
    stage: str, work: ChunkWork, seconds: float, rows: int, made: Made | None = None
) -> None:
    tags, counters = {"work": type(work).__name__}, _counters()
    for name, amount in vars(made).items() if made else ():
        if amount:
            counters[name].inc(amount, tags)
    for name, amount in (("staged", rows), ("busy", seconds)):
        if amount:
            counters[name].inc(amount, {**tags, "stage": stage})
