"""Streaming the rows of a Parquet file through models, with Ray Data.

A chunk is a row group of the file, so the chunks are always the same. Each is processed by one task
or actor and written as one shard; a shard that is there is not made again. So a killed worker loses
its chunk and nothing else, no row is there twice, and the result does not depend on who did what.
"""

import logging
import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.store import Progress, Store
from weakteach.models.resources import Resources

LOGGER = logging.getLogger(__name__)
# A chunk of a large model on a slow device may take many minutes; a deadlock takes for ever.
STALLED_AFTER_SECONDS = 3600
BLOCK_BYTES = 4 << 20


class ChunkWork(Hashable, Protocol):
    """What is done to a chunk. Hashable and small; the model is loaded where the work is done."""

    def load(self) -> Any:
        """Load models; called once per actor, or once per worker process of a task pool."""
        ...

    def process(self, loaded: Any, chunk: pa.Table) -> pa.Table:
        """The rows that the chunk's rows become."""
        ...


@dataclass(frozen=True)
class Stream:
    """A Parquet file of the store and the folder where its shards go."""

    store: Store
    input: str
    shards: str
    work: ChunkWork

    def shard(self, chunk: int) -> str:
        return f"{self.shards}/{chunk:06d}.parquet"


def stream_chunks(
    stream: Stream,
    resources: Resources,
    progress: Progress | None = None,
) -> pa.Table:
    """Process every chunk and return the shards' rows as one table, in the order of the input.

    ``progress`` is told the rows done and the rows in all. Raises StepError with the cause when a
    chunk fails.
    """
    filesystem = stream.store.filesystem
    with filesystem.open_input_file(stream.input) as file:
        metadata = pq.read_metadata(file)
    sizes = [metadata.row_group(chunk).num_rows for chunk in range(metadata.num_row_groups)]
    filesystem.create_dir(stream.shards, recursive=True)
    paths = [stream.shard(chunk) for chunk in range(len(sizes))]
    missing = [i for i, info in enumerate(filesystem.get_file_info(paths)) if not info.is_file]
    done = metadata.num_rows - sum(sizes[chunk] for chunk in missing)
    if missing:
        for chunk in _finished(stream, missing, resources):
            done += sizes[chunk]
            if progress:
                progress(done, metadata.num_rows)
    return pa.concat_tables(pq.read_table(path, filesystem=filesystem) for path in paths)


def _finished(stream: Stream, chunks: list[int], resources: Resources) -> Iterator[int]:
    """Process the chunks with Ray Data; each is given when its shard is there."""
    _quiet_context()
    options: dict[str, Any] = {**resources.device_options(), "batch_size": 1}
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"chunk": chunk} for chunk in chunks], override_num_blocks=len(chunks)
    )
    if resources.label_actors:
        dataset = dataset.map_batches(
            ChunkActor,
            fn_constructor_args=(stream, resources.threads),
            compute=ActorPoolStrategy(size=resources.label_actors),
            **options,
        )
    else:
        dataset = dataset.map_batches(
            _process_batch,  # type: ignore[arg-type]  # takes the arguments below as well
            fn_args=(stream, resources.threads),
            compute=TaskPoolStrategy(size=resources.label_tasks),
            **options,
        )
    for batch in dataset.iter_batches(batch_size=None):
        for chunk, error in zip(batch["chunk"], batch["error"], strict=True):
            if error:
                raise StepError(f"{type(stream.work).__name__}: {error}")
            yield int(chunk)


class ChunkActor:
    """A Ray Data actor; the models of the work stay in its process."""

    def __init__(self, stream: Stream, threads: int) -> None:
        self._stream, self._threads = stream, threads

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return _process_batch(batch, self._stream, self._threads)


def _process_batch(batch: dict[str, np.ndarray], stream: Stream, threads: int) -> dict[str, Any]:
    """An error is handed on as a value: Ray Data would lose what lies below its own message."""
    _set_threads(threads)
    errors = []
    for chunk in map(int, batch["chunk"]):
        try:
            _write_shard(stream, chunk)
            errors.append("")
        except Exception as error:
            LOGGER.exception("chunk %d of %s", chunk, stream.input)
            errors.append(str(error) or type(error).__name__)
    return {"chunk": batch["chunk"], "error": np.array(errors, dtype=object)}


def _write_shard(stream: Stream, chunk: int) -> None:
    filesystem = stream.store.filesystem
    with filesystem.open_input_file(stream.input) as file:
        rows = pq.ParquetFile(file).read_row_group(chunk)
    result = stream.work.process(_loaded(stream.work), rows)
    partial = f"{stream.shards}/.{chunk:06d}-{os.getpid()}.partial"
    pq.write_table(result, partial, filesystem=filesystem)
    filesystem.move(partial, stream.shard(chunk))


@lru_cache(maxsize=1)
def _loaded(work: ChunkWork) -> Any:
    """The models of one step are loaded once in each process, which Ray reuses."""
    return work.load()


def _quiet_context() -> None:
    if not LOGGER.isEnabledFor(logging.INFO):  # Ray Data tells its plans on the terminal
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = STALLED_AFTER_SECONDS
    context.target_max_block_size = BLOCK_BYTES


def _set_threads(threads: int) -> None:
    import torch  # the driver of a cluster run uses this module and holds no torch

    torch.set_num_threads(threads)
