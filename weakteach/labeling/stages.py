"""The two stages of a stream, as tasks and actors run them: prepare, and make.

A shard is one row of Ray Data, and its prepared rows are bytes in that row: Ray Data joins and
splits blocks of rows by their sizes, but never cuts a row. An error is a value in such a row, too:
if it were raised, Ray Data would keep its own message and lose the cause.
"""

import logging
import os
import platform
import time
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from ray.util import metrics

from weakteach.artifacts.errors import in_words, passes
from weakteach.artifacts.signs import Sign
from weakteach.labeling.shards import (
    ChunkWork,
    Made,
    Stream,
    found_shard,
    prepare_shard,
    process_shard,
    write_shard,
)

LOGGER = logging.getLogger(__name__)
DEVICE_FAILED = 70  # exit code of a worker; EX_SOFTWARE
ALONE: AbstractContextManager[Any] = nullcontext()  # for a process that makes one shard at a time


class StreamEndedError(Exception):
    """A shard is not made any more, because its stream has ended early."""

    def __init__(self) -> None:
        super().__init__("the stream has ended")


def prepare_shards(batch: pa.Table, stream: Stream) -> Iterator[pa.Table]:
    """Read and prepare the shards of the batch, which has a row ``start, stop`` for each. Yield a
    table of one row for each: ``start, stop, prepared``, ``preparing`` in seconds, and ``error,
    passes``, which are NO_FAILURE unless it failed."""
    for start, stop in zip(batch["start"].to_pylist(), batch["stop"].to_pylist(), strict=True):
        began, prepared, failure = time.perf_counter(), None, NO_FAILURE
        try:
            _check_goes_on(stream)
            reader = _loaded(stream.work, "load_reader")
            prepared = _as_bytes(prepare_shard(stream, reader, range(start, stop)))
        except Exception as error:
            failure = _failed(stream, range(start, stop), error)
        seconds = time.perf_counter() - began
        if prepared is not None:
            _count("prepare", stream.work, seconds, stop - start)
        yield _row(start=start, stop=stop, prepared=_cell(prepared), preparing=seconds, **failure)


def make_shards(
    batch: pa.Table,
    stream: Stream,
    threads: int,
    device: AbstractContextManager[Any] = ALONE,
) -> pa.Table:
    """Make the shard that is the one row of the batch, and prepare it first unless it is prepared
    already. Returns a row ``start, stop, rows, quarantined, tokens``, ``preparing, making`` in
    seconds, the ``worker``, which is this process, and ``error, passes``, which are NO_FAILURE
    unless it failed. If several threads of a process make shards, only the one that holds
    ``device`` computes."""
    import torch  # in workers only, as below

    from weakteach.models.process import prepare_process

    prepare_process(threads)
    if "prepared" not in batch.column_names:
        with device:
            (batch,) = prepare_shards(batch, stream)
    (row,) = batch.select(["start", "stop", "preparing", *NO_FAILURE]).to_pylist()
    shard, made, making = range(row["start"], row["stop"]), Made(0, 0, 0), 0.0
    if not row["error"]:
        try:
            if stream.begun:
                _put_once(stream.begun)
            if found := found_shard(stream, shard):
                made = found
            else:
                prepared = _from_cell(batch["prepared"][0])
                with device:
                    _check_goes_on(stream)
                    began = time.perf_counter()
                    processed = process_shard(stream, _loaded(stream.work, "load"), prepared)
                    making = time.perf_counter() - began
                made = write_shard(stream, shard, processed)
                _count("make", stream.work, making, len(shard), made)
        except Exception as error:
            row |= _failed(stream, shard, error)
            if isinstance(error, torch.AcceleratorError):
                os._exit(DEVICE_FAILED)  # this process can use its device no more
    worker = f"{platform.node()}:{os.getpid()}"
    return _row(**row, **vars(made), making=making, worker=worker)


def failed_shards(batch: pa.Table, error: Exception) -> pa.Table:
    """What ``make_shards`` would return for a shard that ``error`` kept from being made."""
    row = {name: batch[name][0].as_py() for name in ("start", "stop")}
    spent = {"preparing": 0.0, "making": 0.0, "worker": ""}
    return _row(**row, **vars(Made(0, 0, 0)), **spent, **_failure(error))


def _check_goes_on(stream: Stream) -> None:
    if stream.has_ended:
        raise StreamEndedError


@cache
def _put_once(sign: Sign) -> None:
    """Put the sign once per process. A stream that begins anew has another sign."""
    sign.put()


NO_FAILURE: dict[str, Any] = {"error": "", "passes": False}


def _failed(stream: Stream, shard: range, error: Exception) -> dict[str, Any]:
    if not isinstance(error, StreamEndedError):
        LOGGER.exception("rows %d to %d of %s", shard.start, shard.stop, stream.input)
    return _failure(error)


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": in_words(error), "passes": passes(error)}


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


_LOADED: dict[tuple[Hashable, str], Any] = {}


def _loaded(work: ChunkWork, load: Literal["load_reader", "load"]) -> Any:
    """What the work's method of the name ``load`` returns. It is kept in the process, which Ray
    reuses, for all works of the same model; what was loaded for another model is released first."""
    model = work.model_key()
    if (model, load) not in _LOADED:
        for other in [key for key in _LOADED if key[0] != model]:
            del _LOADED[other]
        _LOADED[model, load] = getattr(work, load)()
    return _LOADED[model, load]


@cache
def _counters() -> dict[str, metrics.Counter]:
    """The metrics of this process, which are made once."""
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
