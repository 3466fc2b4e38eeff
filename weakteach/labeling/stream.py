"""Streaming the rows of a Parquet file through models, with Ray Data.

Ray Data hands out shards (see ``shards.py``) by their numbers of rows, some at a time; the task or
actor that has them reads the rows, processes them and writes one shard after the other. Rows pass
neither through the driver nor through the object store, so neither grows with the input. A killed
worker loses the shard that it was at and nothing else, and no row is there twice.

Tokenization is part of the work: it takes a sixth of the time even of the smallest model, and tasks
of its own would send all tokens through the object store.
"""

import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util import metrics

from weakteach.artifacts.errors import LostError, StepError, passes
from weakteach.artifacts.step import Progress
from weakteach.labeling.shards import (
    QUARANTINE_SHARE,
    ChunkWork,
    Made,
    Shards,
    Stream,
    cut,
    found_shard,
    make_shard,
    quarantined_in,
)
from weakteach.models.resources import Resources

LOGGER = logging.getLogger(__name__)
# A shard of a large model on a slow device may take many minutes; a deadlock takes for ever.
STALLED_AFTER_SECONDS = 3600
BLOCK_BYTES = 4 << 20
DEVICE_FAILED = 70  # exit code of a worker; EX_SOFTWARE
# So few that handing them out costs little (about 20 ms each), so many that all end at one time.
HANDOUTS_PER_WORKER = 16


def stream_chunks(
    stream: Stream,
    resources: Resources,
    progress: Progress | None = None,
) -> Shards:
    """Process every chunk; the shards in which the results lie.

    ``progress`` is told the rows done, the rows in all, and the tokens that this call read. Raises
    StepError with the cause of a failure that is not of single rows.
    """
    filesystem = stream.store.filesystem
    filesystem.create_dir(stream.shards, recursive=True)
    shards = cut(stream)
    infos = filesystem.get_file_info([stream.path(shard) for shard in shards])
    found = [shard for shard, info in zip(shards, infos, strict=True) if info.is_file]
    missing = [shard for shard, info in zip(shards, infos, strict=True) if not info.is_file]
    quarantining = [shard for shard in found if quarantined_in(stream, shard)]
    rows, done, tokens = shards[-1].stop, sum(map(len, found)), 0
    _follow(stream, done, rows, tokens, progress)
    for shard, made in _made(stream, missing, resources):
        done += len(shard)
        tokens += made.tokens
        if made.quarantined:
            quarantining.append(shard)
            _check_quarantine(stream, quarantining, rows)
        _follow(stream, done, rows, tokens, progress)
    devices = min(len(shards), resources.label_workers) * (resources.gpus or 1)
    return Shards(stream, shards, devices)


def _follow(stream: Stream, done: int, rows: int, tokens: int, progress: Progress | None) -> None:
    _chunks_waiting().set(-(-(rows - done) // stream.chunk_rows), _tags(stream.work))
    if progress:
        progress(done, rows, tokens)


def _check_quarantine(stream: Stream, quarantining: list[range], rows: int) -> None:
    """Raises StepError if too many rows are in quarantine; the next try does their shards again."""
    refused = [row for shard in quarantining for row in quarantined_in(stream, shard)]
    if len(refused) == rows or len(refused) > max(1, QUARANTINE_SHARE * rows):
        for shard in quarantining:
            stream.store.filesystem.delete_file(stream.path(shard))
        key, reason = refused[-1]
        raise StepError(
            f"{type(stream.work).__name__}: {len(refused)} of {rows} rows failed (at most "
            f"{QUARANTINE_SHARE:.0%} may), such as {stream.key} {key}: {reason}"
        )


def _made(
    stream: Stream, shards: list[range], resources: Resources
) -> Iterator[tuple[range, Made]]:
    """Make the shards with Ray Data; each is given when it is there."""
    if not shards:
        return
    _quiet_context()
    handouts = min(len(shards), HANDOUTS_PER_WORKER * resources.label_workers)
    # What every handout holds at least; Ray Data would join smaller ones, and needs a number where
    # there are GPUs.
    options: dict[str, Any] = {**resources.device_options(), "batch_size": len(shards) // handouts}
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"start": shard.start, "stop": shard.stop} for shard in shards],
        override_num_blocks=handouts,
    )
    if resources.label_actors:
        dataset = dataset.map_batches(
            ShardActor,
            fn_constructor_args=(stream, resources.threads),
            compute=_pool(resources),
            **options,
        )
    else:
        dataset = dataset.map_batches(
            _make_shards,  # type: ignore[arg-type]  # takes the arguments below as well
            fn_args=(stream, resources.threads),
            compute=TaskPoolStrategy(size=resources.label_tasks),
            **options,
        )
    for row in _despite_losses(stream, dataset, resources):
        if row["error"]:
            kind = LostError if row["passes"] else StepError
            raise kind(f"{type(stream.work).__name__}: {row['error']}")
        yield (
            range(row["start"], row["stop"]),
            Made(row["rows"], row["quarantined"], row["tokens"]),
        )


def _despite_losses(
    stream: Stream, dataset: ray.data.Dataset, resources: Resources
) -> Iterator[dict[str, Any]]:
    """The rows. What a chunk fails with is in them, so that an error of Ray is one of losses.

    Without progress for long, what should label waits for a device, which is no failure, or is
    stuck: then the devices that it had are free as soon as Ray Data has ended it.
    """
    given: set[int] = set()
    while True:
        try:
            for row in dataset.iter_rows():
                if row["start"] not in given:
                    given.add(row["start"])
                    yield row
            return
        except ExecutionTimeoutError as error:
            if _is_room(resources):
                raise LostError(f"{type(stream.work).__name__} was stuck: {error}") from error
            LOGGER.warning("%s waits for a device", type(stream.work).__name__)
        except RayError as error:
            raise LostError(f"{type(stream.work).__name__} was lost: {error}") from error


def _is_room(resources: Resources) -> bool:
    """Whether the cluster has what a labeler needs free now."""
    free = ray.available_resources()
    needed = {"CPU": resources.cpus, "GPU": resources.gpus}
    return all(free.get(name, 0.0) >= amount for name, amount in needed.items())


def _pool(resources: Resources) -> ActorPoolStrategy:
    if not resources.label_actors_max:
        return ActorPoolStrategy(size=resources.label_actors)
    return ActorPoolStrategy(min_size=resources.label_actors, max_size=resources.label_actors_max)


class ShardActor:
    """A Ray Data actor; the models of the work stay in its process."""

    def __init__(self, stream: Stream, threads: int) -> None:
        self._stream, self._threads = stream, threads

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return _make_shards(batch, self._stream, self._threads)


def _make_shards(batch: dict[str, np.ndarray], stream: Stream, threads: int) -> dict[str, Any]:
    """An error is handed on as a value: Ray Data would lose what lies below its own message."""
    import torch  # in workers only, as below

    from weakteach.models.process import prepare_process

    prepare_process(threads)
    shards = [range(int(a), int(b)) for a, b in zip(batch["start"], batch["stop"], strict=True)]
    made, errors, passing = [], [], []
    for shard in shards:
        try:
            made.append(
                found_shard(stream, shard)
                or make_shard(stream, _loaded(stream.work), shard, _count(stream.work))
            )
            errors.append("")
            passing.append(False)
        except Exception as error:
            LOGGER.exception("rows %d to %d of %s", shard.start, shard.stop, stream.input)
            if isinstance(error, torch.AcceleratorError):
                os._exit(DEVICE_FAILED)  # this process can use its device no more
            made.append(Made(0, 0, 0))
            errors.append(str(error) or type(error).__name__)
            passing.append(passes(error))
    return {
        "start": batch["start"],
        "stop": batch["stop"],
        "rows": np.array([m.rows for m in made]),
        "quarantined": np.array([m.quarantined for m in made]),
        "tokens": np.array([m.tokens for m in made]),
        "error": np.array(errors, dtype=object),
        "passes": np.array(passing),
    }


_LOADED: dict[ChunkWork, Any] = {}


def _loaded(work: ChunkWork) -> Any:
    """The models of one step are loaded once in each process, which Ray reuses; those of the step
    before are let go first."""
    if work not in _LOADED:
        _LOADED.clear()
        _LOADED[work] = work.load()
    return _LOADED[work]


def _tags(work: ChunkWork) -> dict[str, str]:
    return {"work": type(work).__name__}


@cache
def _chunks_waiting() -> metrics.Gauge:
    return metrics.Gauge("weakteach_chunks_waiting", "Chunks not processed yet", ("work",))


@cache
def _counters() -> tuple[metrics.Counter, metrics.Counter, metrics.Counter]:
    """Made once in each process: pairs (or prompts) done, those in quarantine, tokens read."""
    return (
        metrics.Counter("weakteach_pairs_total", "Rows processed", ("work",)),
        metrics.Counter("weakteach_quarantined_total", "Rows that failed", ("work",)),
        metrics.Counter("weakteach_tokens_total", "Tokens read by models", ("work",)),
    )


def _count(work: ChunkWork) -> Any:
    def count(made: Made) -> None:
        amounts = (made.rows, made.quarantined, made.tokens)
        for counter, amount in zip(_counters(), amounts, strict=True):
            if amount:
                counter.inc(amount, _tags(work))

    return count


def _quiet_context() -> None:
    if not LOGGER.isEnabledFor(logging.INFO):  # Ray Data tells its plans on the terminal
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = STALLED_AFTER_SECONDS
    context.target_max_block_size = BLOCK_BYTES
