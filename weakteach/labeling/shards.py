"""The shards of a stream: which rows make one, how it is made, and the artifact that all make.

A shard consists of whole chunks, and a chunk of CHUNK_ROWS rows. Which rows make a shard follows
from the number of the input's rows and the tokens of a batch alone, so results depend neither on
which worker makes a shard nor on the number of workers, and a shard that exists is not made again.
Work has two parts, which may be done by two processes: the rows of a shard are prepared on a CPU
(read and tokenized), then processed where the model is.

A row that fails, also when it is tried again alone, goes to quarantine with its reason, and the
stream goes on without it. To find such rows, a shard that fails is cut into its chunks, and a chunk
that fails into halves. An error of storage, memory or device is not put down to rows (see
``errors.is_of_rows``). The stream itself fails on such an error, or if

- the work cannot be loaded,
- no row of a chunk of several rows can be prepared, or none can be processed, or
- all of the input's rows fail, or more than one row and more than QUARANTINE_SHARE of all.
"""

import json
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.errors import StepError, is_of_rows
from weakteach.artifacts.signs import Sign
from weakteach.artifacts.store import Store
from weakteach.preferences.pair import CHUNK_ROWS

LOGGER = logging.getLogger(__name__)
# A shard is what a kill can lose, a Ray task, and a file. So shards are as small as a chunk, unless
# that would make more of them than this.
MAX_SHARDS = 1024
# A batch never spans two shards. So a shard fills a large batch even if rows have as few tokens as
# ROW_TOKENS, but shards are not so large that fewer than ENOUGH_SHARDS are left to share out.
ROW_TOKENS = 64
ENOUGH_SHARDS = 64
QUARANTINE_SHARE = 0.05
# Keys of a schema's metadata. Work may put the number of tokens that it read into the metadata of
# its result.
TOKENS, QUARANTINED = b"tokens", b"quarantined"

Convert = Callable[[pa.Table], pa.Table]
# Keys and reasons of rows that failed.
Refused = list[tuple[str, str]]


class ChunkWork(ABC):
    """What is done to rows. It is small and a value: copies are equal and have the same hash. What
    it needs, such as a model, is loaded in the process that does the work.

    If a part of the work can be done without the model, such as tokenizing, ``prepare`` does it.
    """

    def model_key(self) -> Hashable:
        """A key that is equal for works that load the same, so that they share what one of them has
        loaded. It is the whole work, unless a class says on which parts of it ``load`` and
        ``load_reader`` depend."""
        return self

    def load_reader(self) -> Any:
        """Load what ``prepare`` needs; called once per process, which may have no device."""
        return None

    def prepare(self, reader: Any, rows: pa.Table) -> pa.Table:
        """Turn rows into what ``process`` reads: one row for each, with the key column. Raises if
        any of them cannot be prepared."""
        return rows

    @abstractmethod
    def load(self) -> Any:
        """Load models; called once per actor, or once per worker process of a task pool."""

    @abstractmethod
    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        """Turn prepared rows into results. Raises if any of them cannot be processed."""


@dataclass(frozen=True)
class Stream:
    """A Parquet file of the store and the folder where its shards go.

    ``key`` is the column that names a row in quarantine. The workers of the stream put the sign
    ``begun``, if there is one, when they begin, and make no shard any more once ``ended`` is put.
    """

    store: Store
    input: str
    shards: str
    work: ChunkWork
    key: str = "pair_id"
    chunk_rows: int = CHUNK_ROWS
    begun: Sign | None = None
    ended: Sign | None = None

    def rows(self) -> int:
        """Rows of the input. Raises StepError if there are none."""
        with self.store.filesystem.open_input_file(self.input) as file:
            rows = pq.read_metadata(file).num_rows
        if not rows:
            raise StepError(f"{self.input} holds no rows to process")
        return rows

    def shard_rows(self, rows: int, batch_tokens: int) -> int:
        """The number of rows in each shard of an input of ``rows`` rows, if a batch has
        ``batch_tokens`` tokens. The last shard may have fewer."""
        chunks = -(-rows // self.chunk_rows)
        of_a_batch = batch_tokens // (ROW_TOKENS * self.chunk_rows)
        least = -(-chunks // MAX_SHARDS)
        return self.chunk_rows * max(least, min(of_a_batch, chunks // ENOUGH_SHARDS))

    @property
    def has_ended(self) -> bool:
        return bool(self.ended and self.ended.is_there)

    def path(self, shard: range) -> str:
        return f"{self.shards}/{shard.start:09d}-{shard.stop:09d}.parquet"


@dataclass(frozen=True)
class Made:
    """What became of the rows of one shard. ``tokens`` is 0 where the work does not tell them."""

    rows: int
    quarantined: int
    tokens: int


def cut(stream: Stream, batch_tokens: int) -> list[range]:
    """The rows of each shard, in the order of the input."""
    rows = stream.rows()
    size = stream.shard_rows(rows, batch_tokens)
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def prepare_shard(stream: Stream, reader: Any, shard: range) -> pa.Table:
    """Read the rows of a shard and prepare them. The table's metadata hold the keys and reasons of
    the rows that cannot be prepared, for ``process_shard``.

    Raises StepError, with the first row's reason, if a chunk of several rows has no row that can be
    prepared. Errors that are not about rows propagate unchanged.
    """
    rows = _read_rows(stream, shard)
    tables, refused = _done(stream, partial(stream.work.prepare, reader), rows)
    table = pa.concat_tables(tables) if tables else rows.slice(0, 0)
    return table.replace_schema_metadata({QUARANTINED: json.dumps(refused)})


@dataclass(frozen=True)
class Processed:
    """What the rows of a shard became, and the keys and reasons of those that failed."""

    tables: list[pa.Table]
    refused: Refused


def process_shard(stream: Stream, loaded: Any, prepared: pa.Table) -> Processed:
    """Process the prepared rows of a shard.

    Raises StepError, with the first row's reason, if a chunk of several rows has no row that can be
    processed. Errors that are not about rows propagate unchanged.
    """
    tables: list[pa.Table] = []
    failed: Refused = []
    if len(prepared):
        rows = prepared.replace_schema_metadata(None)
        tables, failed = _done(stream, partial(stream.work.process, loaded), rows)
    return Processed(tables, _refused(prepared.schema) + failed)


def write_shard(stream: Stream, shard: range, processed: Processed) -> Made:
    """Write the rows and the quarantine of a shard to one file, which exists only as a whole."""
    tables, refused = processed.tables, processed.refused
    tokens = sum(int((table.schema.metadata or {}).get(TOKENS, 0)) for table in tables)
    # There are no results if a shard is one row and that row fails.
    table = pa.concat_tables(tables) if tables else pa.table({})
    notes = {QUARANTINED: json.dumps(refused), TOKENS: str(tokens)}
    filesystem = stream.store.filesystem
    unfinished = f"{stream.shards}/.{secrets.token_hex(8)}.partial"
    pq.write_table(table.replace_schema_metadata(notes), unfinished, filesystem=filesystem)
    filesystem.move(unfinished, stream.path(shard))
    return Made(len(shard) - len(refused), len(refused), tokens)


def _read_rows(stream: Stream, shard: range) -> pa.Table:
    with stream.store.filesystem.open_input_file(stream.input) as file:
        parquet = pq.ParquetFile(file)
        groups, skipped, position = [], 0, 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if position + rows <= shard.start:
                skipped = position + rows
            elif position < shard.stop:
                groups.append(group)
            position += rows
        return parquet.read_row_groups(groups).slice(shard.start - skipped, len(shard))


def _done(
    stream: Stream, do: Callable[[pa.Table], pa.Table], rows: pa.Table
) -> tuple[list[pa.Table], Refused]:
    """The results of ``do`` on the rows, and the keys and reasons of those on which it fails."""
    try:
        return [do(rows)], []
    except Exception as error:
        if not is_of_rows(error):
            raise
        LOGGER.warning("%d rows of %s fail", len(rows), stream.input, exc_info=error)
    tables: list[pa.Table] = []
    refused: Refused = []
    for start in range(0, len(rows), stream.chunk_rows):
        chunk = rows.slice(start, stream.chunk_rows)
        results, failed = _halved(stream, do, chunk)
        if len(failed) == len(chunk) > 1:
            key, reason = failed[0]
            raise StepError(
                f"all {len(chunk)} rows of a chunk failed, the first ({stream.key} {key}) with: "
                f"{reason}"
            )
        tables += results
        refused += failed
    return tables, refused


def _halved(
    stream: Stream, do: Callable[[pa.Table], pa.Table], chunk: pa.Table
) -> tuple[list[pa.Table], Refused]:
    """Like ``_done``, for one chunk: the rows that fail are found by halving what fails."""
    try:
        return [do(chunk)], []
    except Exception as error:
        if not is_of_rows(error):
            raise
        if len(chunk) == 1:
            key = str(chunk[stream.key][0].as_py())
            reason = str(error) or type(error).__name__
            LOGGER.warning("%s %s: %s", stream.key, key, reason, exc_info=error)
            return [], [(key, reason)]
    half = len(chunk) // 2
    tables, failed = _halved(stream, do, chunk.slice(0, half))
    more_tables, more_failed = _halved(stream, do, chunk.slice(half))
    return tables + more_tables, failed + more_failed


def found_shard(stream: Stream, shard: range) -> Made | None:
    """What became of the rows of a shard, if its file exists already, else None. The file exists,
    for example, if a worker died after it had made the shard but before it could say so."""
    path, filesystem = stream.path(shard), stream.store.filesystem
    if not filesystem.get_file_info(path).is_file:
        return None
    schema = pq.read_schema(path, filesystem=filesystem)
    refused = len(_refused(schema))
    return Made(len(shard) - refused, refused, int(schema.metadata[TOKENS]))


def quarantined_in(stream: Stream, shard: range) -> Refused:
    """Keys and reasons of the rows of a finished shard that failed."""
    return _refused(pq.read_schema(stream.path(shard), filesystem=stream.store.filesystem))


def _refused(schema: pa.Schema) -> Refused:
    return [(key, reason) for key, reason in json.loads(schema.metadata[QUARANTINED])]


@dataclass(frozen=True)
class Busy:
    """How many rows of the input were made, the seconds that all workers together spent on
    preparing and on making them, and which workers made them. Waiting is not counted, so the
    seconds tell each stage's own rate."""

    rows: int = 0
    preparing: float = 0.0
    making: float = 0.0
    workers: frozenset[str] = frozenset()

    def __add__(self, other: "Busy") -> "Busy":
        return Busy(
            self.rows + other.rows,
            self.preparing + other.preparing,
            self.making + other.making,
            self.workers | other.workers,
        )

    def __str__(self) -> str:
        prepared, made = (self.rows / max(s, 1e-9) for s in (self.preparing, self.making))
        return f"{self.rows:,} rows, prepared at {prepared:,.0f} and made at {made:,.0f} a second"


@dataclass(frozen=True)
class Shards:
    """The shards of a stream, which are all made. ``devices`` devices worked on them."""

    stream: Stream
    shards: list[range]
    devices: float
    busy: Busy

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of each shard, in the order of the input."""
        for table, _ in self._read():
            yield table

    def write(
        self,
        file: Path,
        convert: Convert = lambda table: table,
        metadata: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Write the rows to ``file`` and the failed ones to ``quarantine.parquet`` beside it.

        No more than a shard is in memory. Returns the facts ``rows`` and ``quarantined``, whose
        sum is the number of the input's rows, and ``devices``.
        """
        schema = pa.schema([(self.stream.key, pa.string()), ("reason", pa.string())])
        facts = {"rows": 0, "quarantined": 0}
        writer = None
        try:
            with pq.ParquetWriter(file.with_name("quarantine.parquet"), schema) as quarantine:
                for rows, refused in self._read():
                    if refused:
                        columns = [list(column) for column in zip(*refused, strict=True)]
                        quarantine.write_table(pa.table(columns, schema))
                    if len(rows):
                        table = convert(rows).replace_schema_metadata(metadata)
                        writer = writer or pq.ParquetWriter(file, table.schema)
                        writer.write_table(table)
                    facts["rows"] += len(rows)
                    facts["quarantined"] += len(refused)
        finally:
            if writer:
                writer.close()
        return {**facts, "devices": self.devices}

    def _read(self) -> Iterator[tuple[pa.Table, Refused]]:
        for shard in self.shards:
            path = self.stream.path(shard)
            table = pq.read_table(path, filesystem=self.stream.store.filesystem)
            yield table.replace_schema_metadata(None), _refused(table.schema)
