"""Readers of files: every row of a JSONL, CSV or Parquet file, streamed, once, in its order.

A row that is bad by itself is quarantined. Raises DataError where the file as a whole is bad.
"""

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.preferences.pair import DataError, Quarantined
from weakteach.preferences.rows import COLUMNS, Row, require_columns, row_comparison

PARQUET_ROWS = 1024
# No pair is as long; a damaged or malicious file may hold a line that fills the memory.
MAX_ROW_BYTES = 16 << 20


def json_rows(path: Path, name: str, compressed: bool) -> Iterator[Row]:
    """Rows by line number; blank lines are none. Raises DataError for a damaged gzip file."""
    with gzip.open(path) if compressed else path.open("rb") as file:
        for number, line in enumerate(_undamaged(_lines(file), name), 1):
            if len(line) > MAX_ROW_BYTES:
                detail = f"a line of more than {MAX_ROW_BYTES >> 20} MiB"
                yield Quarantined(f"{name}:{number}", "too long", detail)
                continue
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
                if line.lstrip().startswith(b"["):
                    raise DataError(f"{name} is one JSON array. Write one JSON object a line.")
            if not line.strip():
                continue
            place = f"{name}:{number}"
            try:
                row = json.loads(line.decode())
            except UnicodeDecodeError as error:
                yield Quarantined(place, "bad Unicode", f"not UTF-8 at byte {error.start}")
            except (ValueError, RecursionError) as error:
                yield Quarantined(place, "bad JSON", str(error))
            else:
                if isinstance(row, dict):
                    yield row_comparison(row, place)
                else:
                    yield Quarantined(place, "bad JSON", "not an object")


def _lines(file: BufferedIOBase) -> Iterator[bytes]:
    """The lines; of one that is longer than MAX_ROW_BYTES the first bytes, one more than those."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        yield line
        while len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_ROW_BYTES + 1)


def _undamaged(lines: Iterable[bytes], name: str) -> Iterator[bytes]:
    number = 0
    try:
        for line in lines:
            number += 1
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{name} is damaged or no gzip file and cannot be read past line {number}: {error}"
        ) from error


def csv_rows(path: Path, name: str) -> Iterator[Row]:
    """Rows counted below the header. Raises DataError when the header fits no accepted form."""
    # The default limit of 128 KiB a cell is a limit of this one format; too long is decided later.
    csv.field_size_limit(MAX_ROW_BYTES)
    # Undecodable bytes become lone surrogates, so that only their own row is refused.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        number = 0
        header: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None:
                    raise DataError(f"the header of {name} is not CSV: {error}") from error
                number += 1
                yield Quarantined(f"{name}:{number}", "bad CSV", str(error))
                continue
            if not cells:
                continue
            if header is None:
                require_columns(cells, name)
                header = cells
                continue
            number += 1
            place = f"{name}:{number}"
            if len(cells) > len(header):
                detail = f"{len(cells)} cells under {len(header)} columns"
                yield Quarantined(place, "bad CSV", detail)
            else:
                yield row_comparison(dict(zip(header, cells, strict=False)), place)


def parquet_rows(path: Path, name: str) -> Iterator[Row]:
    """Rows in order. Raises DataError for a damaged file or columns that fit no accepted form."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            require_columns(file.schema_arrow.names, name)
            columns = [column for column in COLUMNS if column in file.schema_arrow.names]
            for batch in file.iter_batches(PARQUET_ROWS, columns=columns):
                for row in _batch_rows(batch):
                    number += 1
                    place = f"{name}:{number}"
                    if row is None:
                        yield Quarantined(place, "bad Unicode", "not UTF-8")
                    else:
                        yield row_comparison(row, place)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{name} is damaged or no Parquet file and cannot be read past row {number}: {error}"
        ) from error


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The rows of a batch, None for a row whose texts are not UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        half = batch.num_rows // 2
        return _batch_rows(batch.slice(0, half)) + _batch_rows(batch.slice(half))
