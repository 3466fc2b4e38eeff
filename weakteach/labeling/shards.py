"""The shards of a stream: which rows make one, how it is made, and the artifact that all make.

Rows are kept in shards of whole chunks of CHUNK_ROWS. Both follow from the number of the input's
rows and the tokens of a batch alone, so results depend neither on who makes a shard nor on how many
are at work, and a shard that is there is not made again. Work has two parts, which may be done by
two processes: the rows of a shard are prepared on a CPU (read and tokenized), then processed where
the model is.

A row that cannot be prepared or processed goes to quarantine with its reason, and a stream goes on
without it: one that fails alone, and again. To find it, a shard that fails is cut into its chunks,
and a chunk that fails into halves. An error of storage, memory or device (``errors.is_of_rows``)
says nothing of rows. A failure that is not of single rows is an error all the same; it is one if

- the work cannot be loaded,
- no row of a chunk of several rows can be prepared, or none processed, or
- more than QUARANTINE_SHARE of the input's rows, and more than one, or all of them, fail.
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
# A shard is what a kill can lose, a Ray task, and a file: as small as a chunk, but not too many.
MAX_SHARDS = 1024
# A batch is never of two shards. Of large batches, shards are as large as one of rows so short,
# but there stay so many shards that all who label have a few.
ROW_TOKENS = 64
ENOUGH_SHARDS = 64
QUARANTINE_SHARE = 0.05
# Keys of a schema's metadata. A work may tell the tokens that it read in that of its result.
TOKENS, QUARANTINED = b"tokens", b"quarantined"

Convert = Callable[[pa.Table], pa.Table]
# Keys and reasons of rows that failed.
Refused = list[tuple[str, str]]


class ChunkWork(ABC):
    """What is done to rows. Small, and a value: copies are equal, and have one hash. What it needs
    is loaded where it is done.

    Work that has something to do without its model, such as to tokenize, does it in ``prepare``.
    """

    def model_key(self) -> Hashable:
        """Equal for works that load the same, which share what one of them has loaded. The work
        itself, where it does not say on what of it ``load`` and ``load_reader`` depend."""
        return self

    def load_reader(self) -> Any:
        """Load what ``prepare`` needs; called once per process, which may have no device."""
        return None

    def prepare(self, reader: Any, rows: pa.Table) -> pa.Table:
        """What ``process`` reads of the rows: a row for each, with the key. Raises when any of them
        cannot be prepared."""
        return rows

    @abstractmethod
    def load(self) -> Any:
        """Load models; called once per actor, or once per worker process of a task pool."""

    @abstractmethod
    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        """What prepared rows become. Raises when any of them cannot be processed."""


@dataclass(frozen=True)
class Stream:
    """A Parquet file of the store and the folder where its shards go.

    ``key`` is the column that names a row in quarantine. Its workers put the ``sign``, if there is
    one, once they are there.
    """

    store: Store
    input: str
    shards: str
    work: ChunkWork
    key: str = "pair_id"
    chunk_rows: int = CHUNK_ROWS
    sign: Sign | None = None

    def rows(self) -> int:
        """Rows of the input. Raises StepError if there are none."""
        with self.store.filesystem.open_input_file(self.input) as file:
            rows = pq.read_metadata(file).num_rows
        if not rows:
            raise StepError(f"{self.input} holds no rows to process")
        return rows

    def shard_rows(self, rows: int, batch_tokens: int) -> int:
        """Rows of each shard of an input of so many rows, of which batches of so many tokens are
        made; the last one may have fewer."""
        chunks = -(-rows // self.chunk_rows)
        of_a_batch = batch_tokens // (ROW_TOKENS * self.chunk_rows)
        least = -(-chunks // MAX_SHARDS)
        return self.chunk_rows * max(least, min(of_a_batch, chunks // ENOUGH_SHARDS))

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
    """Read the rows of a shard and prepare them. Metadata of the table hold those that cannot be,
    for ``process_shard``.

    Raises StepError with the first reason if no row of a chunk of several can be prepared, and
    what is not of rows as it is.
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

    Raises StepError with the first reason if no row of a chunk of several can be processed, and
    what is not of rows as it is.
    """
    tables: list[pa.Table] = []
    failed: Refused = []
    if len(prepared):
        rows = prepared.replace_schema_metadata(None)
        tables, failed = _done(stream, partial(stream.work.process, loaded), rows)
    return Processed(tables, _refused(prepared.schema) + failed)


def write_shard(stream: Stream, shard: range, processed: Processed) -> Made:
    """Write the rows and the quarantine of a shard in one file, which is there whole or not."""
    tables, refused = processed.tables, processed.refused
    tokens = sum(int((table.schema.metadata or {}).get(TOKENS, 0)) for table in tables)
    # Without results, if a shard is one row and that row fails.
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
    """Results, and keys and reasons of the rows that fail."""
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
    """The same, found by halving what fails."""
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
    """What became of the rows of a shard that is there, as after the death of a worker that had
    made it and not yet told."""
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
    """Rows of the input that were made, and the seconds that all workers together were preparing
    and making them: a stage's own rate, whatever it waited for."""

    rows: int = 0
    preparing: float = 0.0
    making: float = 0.0

    def __add__(self, other: "Busy") -> "Busy":
        return Busy(
            self.rows + other.rows, self.preparing + other.preparing, self.making + other.making
        )

    def __str__(self) -> str:
        prepared, made = (self.rows / max(s, 1e-9) for s in (self.preparing, self.making))
        return f"{self.rows:,} rows, prepared at {prepared:,.0f} and made at {made:,.0f} a second"


@dataclass(frozen=True)
class Shards:
    """All shards of a stream, each of them there; at most ``devices`` were at work on them."""

    stream: Stream
    shards: list[range]
    devices: float
    busy: Busy

    def tables(self) -> Iterator[pa.Table]:
        """The rows of one shard after the other, in the order of the input."""
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
