"""Readers of files: each streams every row once, in order, with its place.

A row that is bad by itself is quarantined; a file that is bad as a whole raises DataError. Places
are ``name:number``: numbers of physical lines in JSONL and CSV files (the header of a CSV file is
line 1), else numbers of rows.
"""

import csv
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.preferences.files import MAX_ROW_BYTES, is_utf8, joined, text_lines
from weakteach.preferences.forms import find_forms, fold
from weakteach.preferences.pair import DataError, Quarantined
from weakteach.preferences.rows import Record

PARQUET_ROWS = 1024
# The longest JSON document that is read: it is held in memory whole.
MAX_DOCUMENT = 512 << 20
# How many lines one quoted cell of CSV may span.
MAX_CELL_LINES = 4096
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Header:
    """The columns of a table, before its rows."""

    columns: list[str]


@dataclass(frozen=True)
class Note:
    """Something that a user should know about a row that is read nevertheless."""

    place: str
    text: str


Read = Header | Note | Quarantined | Record


def read_file(path: Path, name: str, kind: str) -> Iterator[Read]:
    """Everything that a file holds; ``kind`` is what ``file_kind`` returns for it."""
    form, _, compression = kind.partition(".")
    if form == "parquet":
        return _parquet(path, name)
    if form == "csv":
        return _csv(path, name, compression)
    return _json(path, name, compression)


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        seen = [key for key, _ in items]
        twice = next(key for key in seen if seen.count(key) > 1)
        raise ValueError(f"two values of one name, {ascii(twice)[:40]}")
    return found


def _loaded(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _json(path: Path, name: str, compression: str) -> Iterator[Read]:
    lines = text_lines(path, name, compression, "\n")
    first = list(islice(lines, 1))
    if first and (rows := _document(first[0], path, name, compression)) is not None:
        for number, row in enumerate(rows, 1):
            place = f"{name}:{number}"
            yield (place, row) if isinstance(row, dict) else _not_object(place)
        return
    for number, line in enumerate(chain(first, lines), 1):
        place = f"{name}:{number}"
        if len(line) > MAX_ROW_BYTES:
            detail = f"a line of more than {MAX_ROW_BYTES >> 20} MiB"
            yield Quarantined(place, "too long", detail)
        elif not line.strip():
            continue
        elif not is_utf8(line):
            yield Quarantined(place, "bad Unicode", "not UTF-8")
        else:
            try:
                row = _loaded(line)
            except (ValueError, RecursionError) as error:
                yield Quarantined(place, "bad JSON", str(error))
            else:
                yield (place, row) if isinstance(row, dict) else _not_object(place)


def _not_object(place: str) -> Quarantined:
    return Quarantined(place, "bad JSON", "not an object")


def _document(first: str, path: Path, name: str, compression: str) -> list[Any] | None:
    """The rows of a file that is one JSON array or an object around one; None for JSONL. Raises
    DataError for an array that is too long or damaged."""
    start = first.lstrip()[:1]
    try:
        begun = _loaded(first)
    except (ValueError, RecursionError):
        begun = None
    if start not in ("{", "[") and first.strip():
        return None
    if isinstance(begun, dict) and _wrapped(begun) is None:
        return None
    text = joined(text_lines(path, name, compression, "\n"), MAX_DOCUMENT)
    start = text.lstrip()[:1] if text is not None else start
    if text is None:
        if start == "[":
            raise DataError(
                f"{name} is one JSON array of more than {MAX_DOCUMENT >> 20} MiB. Write one JSON "
                "object a line, as JSONL."
            )
        return None
    try:
        whole = _loaded(text)
    except (ValueError, RecursionError) as error:
        lines = text.split("\n")
        if start == "[" and len(lines[0]) < 1000 and not isinstance(begun, list):
            raise DataError(f"{name} is one JSON array, and damaged: {error}") from error
        return None
    if isinstance(whole, list):
        return whole
    return _wrapped(whole) if isinstance(whole, dict) else None


def _wrapped(document: dict[str, Any]) -> list[Any] | None:
    """The only list of objects in a JSON object. None if there is none or several, or if the object
    is a row itself: it has other fields, and the list's objects fit no form."""
    lists = [v for v in document.values() if isinstance(v, list) and v]
    lists = [v for v in lists if all(isinstance(row, dict) for row in v)]
    if len(lists) != 1:
        return None
    holds_pairs = len(document) == 1 or find_forms({fold(name) for name in lists[0][0]})
    return lists[0] if holds_pairs else None


def _csv(path: Path, name: str, compression: str) -> Iterator[Read]:
    # The default limit of 128 KiB per cell would hold for this format alone; whether a row is too
    # long is decided later.
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = text_lines(path, name, compression, "")
    waiting: deque[str] = deque()
    number = 0
    header: list[str] = []
    delimiter = ","

    def cells_of(texts: list[str]) -> list[str]:
        return next(csv.reader(texts, strict=True, delimiter=delimiter), [])

    def more() -> str | None:
        return waiting.popleft() if waiting else next(lines, None)

    while (line := more()) is not None:
        number += 1
        place = f"{name}:{number}"
        if not line.strip("\r\n"):
            continue
        if not header:
            delimiter = max(DELIMITERS, key=line.count)
        record, error, cells = [line], "", [""]
        length = len(line)
        while True:
            try:
                cells, error = cells_of(record), ""
                break
            except csv.Error as problem:
                error = str(problem)
                is_open = "unexpected end of data" in error
            following = more() if is_open else None
            if following is None:
                break
            record.append(following)
            length += len(following)
            # Parsing again only at lines with a quote keeps long cells from taking quadratic time.
            while '"' not in following and (following := more()) is not None:
                record.append(following)
                length += len(following)
                if len(record) > MAX_CELL_LINES or length > MAX_ROW_BYTES:
                    break
            if len(record) > MAX_CELL_LINES or length > MAX_ROW_BYTES or following is None:
                break
        if not header:
            if error:
                raise DataError(f"the header of {name} is not CSV: {error}")
            header = cells
            number += len(record) - 1
            yield Header(header)
            continue
        # A record that is whole is one row, whatever its lines look like: a cell may hold a table.
        if (error or len(cells) != len(header)) and len(record) > 1:
            waiting.extendleft(reversed(record[1:]))
            yield Quarantined(place, "bad CSV", error or f"an open quote before line {number + 1}")
            continue
        number += len(record) - 1
        if error or len(cells) > len(header):
            detail = error or f"{len(cells)} cells under {len(header)} columns"
            yield Quarantined(place, "bad CSV", detail)
            continue
        if _holds_rows(record[1:-1], cells_of, len(header)):
            yield Note(place, f"a cell over {len(record)} lines holds delimiters")
        yield place, dict(zip(header, cells, strict=False))


def _holds_rows(lines: list[str], cells_of: Any, columns: int) -> bool:
    """Whether any of the lines would be a whole row by itself."""
    for line in lines:
        try:
            if columns > 1 and len(cells_of([line])) == columns:
                return True
        except csv.Error:
            continue
    return False


def _parquet(path: Path, name: str) -> Iterator[Read]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            yield Header(file.schema_arrow.names)
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in _batch_rows(batch):
                    number += 1
                    place = f"{name}:{number}"
                    yield (
                        Quarantined(place, "bad Unicode", "not UTF-8")
                        if row is None
                        else (place, row)
                    )
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
