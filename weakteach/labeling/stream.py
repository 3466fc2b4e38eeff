"""Streaming the rows of a Parquet file through models, with Ray Data.

Ray Data hands out shards (see ``shards.py``), several at a time and each as a range of row numbers,
to two stages (see ``stages.py``): tasks on CPUs that read and tokenize the rows, and tasks or
actors that hold the model, compute, and write one shard after the other. So a device never waits
for its tokenizer, and Ray Data keeps the first stage from running ahead of the second by more than
a few shards. Results pass neither through the driver nor through the object store, so neither grows
with the input. A killed worker loses only the shard that it was working on, and no row occurs
twice.

Actors are not Ray Data's own but those of the run (see ``holders.py``), which outlive a step. Where
they label, Ray Data runs as many tasks as there are labelers. These tasks prepare shards and hand
them to the actors, a few shards ahead.

Without devices, the process that holds the model prepares its own shards: Ray Data fuses tasks that
want the same resources, and actors are handed shards that are not prepared. In this case the arms
of a study keep all cores busy, and for each labeler one process is loaded and held in memory, not
two. On idle cores two would be faster (``tests/benchmarks/labeling_overhead.py``).
"""

import logging
import secrets
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

import pyarrow as pa
import ray.data
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util import metrics

from weakteach.artifacts.errors import LostError, StepError
from weakteach.artifacts.signs import Sign
from weakteach.artifacts.step import Progress
from weakteach.labeling.holders import SHARDS_AHEAD, relay_shards, start_holders
from weakteach.labeling.shards import (
    QUARANTINE_SHARE,
    Busy,
    Made,
    Shards,
    Stream,
    cut,
    quarantined_in,
)
from weakteach.labeling.stages import make_shards, prepare_shards
from weakteach.models.resources import Resources
from weakteach.models.room import has_room, waits_told

LOGGER = logging.getLogger(__name__)
# A shard of a large model on a slow device may take many minutes; a deadlock takes for ever.
STALLED_AFTER_SECONDS = 3600
# Ray Data joins prepared shards into blocks of up to this size: large enough that starting a task
# for one costs little, small enough that a device gets its first work soon.
BLOCK_BYTES = 1 << 20
# Prepared shards that the object store holds for each labeler, more or less.
AHEAD_BYTES = 128 << 20
# Few enough that handing them out costs little (about 20 ms each), and enough that all workers end
# at about the same time.
HANDOUTS_PER_WORKER = 16


def stream_chunks(
    stream: Stream,
    resources: Resources,
    progress: Progress | None = None,
) -> Shards:
    """Process every chunk. Return the shards, which hold the results.

    ``progress`` is told the rows done, the rows in all, and the tokens that this call read. Raises
    StepError, with the cause, for a failure that is not of single rows.
    """
    filesystem = stream.store.filesystem
    filesystem.create_dir(stream.shards, recursive=True)
    shards = cut(stream, resources.batch_tokens)
    infos = filesystem.get_file_info([stream.path(shard) for shard in shards])
    found = [shard for shard, info in zip(shards, infos, strict=True) if info.is_file]
    missing = [shard for shard, info in zip(shards, infos, strict=True) if not info.is_file]
    failed = {shard: len(quarantined_in(stream, shard)) for shard in found}
    quarantining, refused = [shard for shard in found if failed[shard]], sum(failed.values())
    rows, done, tokens, busy = shards[-1].stop, sum(map(len, found)), 0, Busy()
    _check_quarantine(stream, quarantining, refused, rows)
    _follow(stream, done, rows, tokens, progress)

    def tell(waits: bool) -> None:
        _follow(stream, done, rows, tokens, progress, waits)

    room, told = partial(has_room, resources), tell if progress else None
    with (
        waits_told(stream.store, stream.shards, told, room) as begun,
        closing(_made(replace(stream, begun=begun), missing, resources)) as finished,
    ):
        for shard, made, spent in finished:
            done += len(shard)
            tokens += made.tokens
            busy += spent
            if made.quarantined:
                quarantining.append(shard)
                refused += made.quarantined
                _check_quarantine(stream, quarantining, refused, rows)
            _follow(stream, done, rows, tokens, progress)
    if busy.rows:
        LOGGER.info("%s: %s", type(stream.work).__name__, busy)
    workers = min(max(1, len(busy.workers)), resources.label_workers)  # some replaced lost ones
    devices = workers * (resources.gpus or 1)
    return Shards(stream, shards, devices, busy)


def _follow(
    stream: Stream,
    done: int,
    rows: int,
    tokens: int,
    progress: Progress | None,
    waits: bool = False,
) -> None:
    _chunks_waiting().set(
        -(-(rows - done) // stream.chunk_rows), {"work": type(stream.work).__name__}
    )
    if progress:
        progress(done, rows, tokens, waits)


def _check_quarantine(stream: Stream, quarantining: list[range], refused: int, rows: int) -> None:
    """If too many rows are in quarantine, ``refused`` of all, delete their shards, so that the next
    attempt makes them again, and raise StepError."""
    if refused == rows or refused > max(1, QUARANTINE_SHARE * rows):
        key, reason = quarantined_in(stream, quarantining[-1])[-1]
        for shard in quarantining:
            stream.store.filesystem.delete_file(stream.path(shard))
        raise StepError(
            f"{type(stream.work).__name__}: {refused} of {rows} rows failed (at most "
            f"{QUARANTINE_SHARE:.0%} may), such as {stream.key} {key}: {reason}"
        )


def _made(
    stream: Stream, shards: list[range], resources: Resources
) -> Generator[tuple[range, Made, Busy]]:
    """Make the shards with Ray Data, and yield each as soon as it is made. An error of one, or of
    the caller, is raised once no other shard of the stream is being made."""
    if not shards:
        return
    ended = Sign(stream.store, f"{stream.shards}/.{secrets.token_hex(8)}.ended")
    stream = replace(stream, ended=ended)
    workers = min(len(shards), resources.label_workers)
    _quiet_context(workers)
    together = SHARDS_AHEAD if resources.label_actors else 1
    dataset: ray.data.Dataset = ray.data.from_items(
        [{"start": shard.start, "stop": shard.stop} for shard in shards],
        override_num_blocks=min(-(-len(shards) // together), HANDOUTS_PER_WORKER * workers),
    )
    dataset.set_name(type(stream.work).__name__)
    if resources.label_actors:
        dataset = _through_actors(dataset, stream, resources, workers)
    else:
        dataset = _through_tasks(dataset, stream, resources, workers)
    rows = _despite_losses(stream, dataset, resources)
    try:
        for row in rows:
            if row["error"]:
                kind = LostError if row["passes"] else StepError
                raise kind(f"{type(stream.work).__name__}: {row['error']}")
            shard = range(row["start"], row["stop"])
            made = Made(row["rows"], row["quarantined"], row["tokens"])
            worker = frozenset([row["worker"]])
            yield shard, made, Busy(len(shard), row["preparing"], row["making"], worker)
    except (Exception, GeneratorExit):
        _let_end(rows, ended)
        raise


def _let_end(rows: Iterator[dict[str, Any]], ended: Sign) -> None:
    """Have the workers make no further shard, and wait until they have finished those that they are
    making. Left alone, Ray Data would cancel them, and if a task ends while Ray 2.60 cancels it,
    this process is aborted."""
    try:
        ended.put()
        for _ in rows:
            pass
        ended.take()
    except (OSError, LostError):
        LOGGER.exception("%s: the end of a stream", ended.path)


def _through_tasks(
    dataset: ray.data.Dataset, stream: Stream, resources: Resources, workers: int
) -> ray.data.Dataset:
    # The same pool for both stages: Ray Data fuses no others.
    pool = TaskPoolStrategy(size=workers)
    prepared = dataset.map_batches(
        prepare_shards,  # type: ignore[arg-type]  # takes the arguments below as well
        fn_args=(stream,),
        batch_size=None,
        batch_format="pyarrow",
        compute=pool,
        **resources.preparing_options(),
    )
    return prepared.map_batches(
        make_shards,  # type: ignore[arg-type]  # as above
        fn_args=(stream, resources.threads),
        batch_size=1,  # a shard
        batch_format="pyarrow",
        compute=pool,
        **resources.device_options(),
    )


def _through_actors(
    dataset: ray.data.Dataset, stream: Stream, resources: Resources, workers: int
) -> ray.data.Dataset:
    return dataset.map_batches(
        relay_shards,  # type: ignore[arg-type]  # as above
        fn_args=(stream, resources, start_holders()),
        batch_size=None,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=workers),
        num_cpus=resources.preparing_cpus,
    )


def _despite_losses(
    stream: Stream, dataset: ray.data.Dataset, resources: Resources
) -> Iterator[dict[str, Any]]:
    """The rows of the dataset, one for each shard. An error of a chunk is a value in its row, so an
    error that Ray raises means that something was lost: LostError is raised in its place.

    If Ray Data ends the work because nothing progressed for long, either the labelers wait for a
    device, which is no failure, so the dataset is run again; or they were stuck. Then the devices
    that they had are free as soon as Ray Data has ended them, and LostError is raised.
    """
    given: set[int] = set()
    while True:
        try:
            # iter_rows would give each block only once the next one is there.
            for table in dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in cast(pa.Table, table).to_pylist():
                    if row["start"] not in given:
                        given.add(row["start"])
                        yield row
            return
        except ExecutionTimeoutError as error:
            if has_room(resources):
                raise LostError(f"{type(stream.work).__name__} was stuck: {error}") from error
            LOGGER.warning("%s waits for a device", type(stream.work).__name__)
        except RayError as error:
            raise LostError(f"{type(stream.work).__name__} was lost: {error}") from error


@cache
def _chunks_waiting() -> metrics.Gauge:
    return metrics.Gauge("weakteach_chunks_waiting", "Chunks not processed yet", ("work",))


def _quiet_context(workers: int) -> None:
    if not LOGGER.isEnabledFor(logging.INFO):  # Ray Data tells its plans on the terminal
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = STALLED_AFTER_SECONDS
    context.target_max_block_size = BLOCK_BYTES
    ahead = ExecutionResources(object_store_memory=workers * AHEAD_BYTES)
    context.execution_options.resource_limits = ahead
