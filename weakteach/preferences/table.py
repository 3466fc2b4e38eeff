"""Write rows into tables: pairs, human choices, quarantine, and what became of every row."""

import sqlite3
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.preferences.pair import (
    CHOICE_SCHEMA,
    GROUP_ROWS,
    PAIR_SCHEMA,
    QUARANTINE_SCHEMA,
    ROW_SCHEMA,
    Comparison,
    Pair,
    Quarantined,
    TokenCounter,
    canonical_pair,
    refusal,
)

# The reason to leave out a pair that a model's chat template refuses, or whose responses it shows
# alike or as nothing.
UNREADABLE = "not readable"


def write_pairs(
    rows: Iterable[Comparison | Quarantined],
    out: Path,
    source: str,
    count_tokens: TokenCounter,
    max_tokens: int,
) -> dict[str, int]:
    """Write ``pairs``, ``choices``, ``rows`` and ``quarantine`` (Parquet) into the folder ``out``.

    Of equal pairs the first is kept, or none if their human choices contradict each other. Memory
    does not grow with the number of rows: the ids of the pairs seen lie in a temporary database.
    Returns the counts ``rows``, ``pairs``, ``choices`` and ``quarantined``; rows = pairs +
    quarantined.
    """
    with _SeenPairs() as seen:
        _offer(rows, out, source, seen, count_tokens, max_tokens)
        return _settle(out, seen, seen.contradictory())


def _offer(
    rows: Iterable[Comparison | Quarantined],
    out: Path,
    source: str,
    seen: "_SeenPairs",
    count_tokens: TokenCounter,
    max_tokens: int,
) -> None:
    """Write the pairs that no earlier row rules out, and what became of each comparison, in a first
    pass."""
    remaining = iter(rows)
    number = -1
    with (
        pq.ParquetWriter(out / "pairs.parquet", PAIR_SCHEMA) as pairs_file,
        pq.ParquetWriter(out / "rows.parquet", ROW_SCHEMA) as rows_file,
    ):
        while chunk := list(islice(remaining, GROUP_ROWS)):
            fates = []
            candidates: list[tuple[dict[str, Any], Comparison, Pair]] = []
            for row in chunk:
                number += row.part == 1
                fate: dict[str, Any] = {"row": number, "place": row.place, "id": _writable(row.id)}
                fates.append(fate)
                if isinstance(row, Quarantined):
                    fate |= {"reason": row.reason, "detail": row.detail}
                elif reason := refusal(row):
                    fate |= {"reason": reason, "detail": ""}
                else:
                    pair, choice = canonical_pair(row)
                    first, second = map(_writable, row.columns)
                    fate |= {
                        "pair_id": pair.pair_id,
                        "swapped": row.first == pair.response_2,
                        "choice": row.preferred,
                        "first": first,
                        "second": second,
                        "decided": row.decided,
                    }
                    if seen.add(pair.pair_id, choice):
                        candidates.append((fate, row, pair))
                    else:
                        fate |= {"reason": "duplicate pair", "detail": pair.pair_id}
            lengths = count_tokens([pair for *_, pair in candidates]) if candidates else []
            kept = []
            for (fate, row, pair), n_tokens in zip(candidates, lengths, strict=True):
                if isinstance(n_tokens, str):
                    fate |= {"reason": UNREADABLE, "detail": n_tokens}
                elif n_tokens > max_tokens:
                    fate |= {
                        "reason": "too long",
                        "detail": f"{n_tokens} tokens, at most {max_tokens}",
                    }
                else:
                    kept.append(
                        {
                            **_columns(pair),
                            "source": source,
                            "place": row.place,
                            "id": fate["id"],
                            "n_tokens": n_tokens,
                        }
                    )
            pairs_file.write_table(pa.Table.from_pylist(kept, PAIR_SCHEMA))
            rows_file.write_table(pa.Table.from_pylist(fates, ROW_SCHEMA))


def _settle(out: Path, seen: "_SeenPairs", contradictory: set[str]) -> dict[str, int]:
    """Remove the contradictory pairs, which later rows have shown, from the tables; then write the
    tables of choices and quarantine, and return the counts."""
    counts = dict.fromkeys(("rows", "pairs", "choices", "quarantined"), 0)
    pairs_path, rows_path = out / "pairs.parquet", out / "rows.parquet"
    pairs_path, rows_path = (p.rename(p.with_suffix(".all")) for p in (pairs_path, rows_path))
    with (
        pq.ParquetFile(pairs_path) as pairs,
        pq.ParquetWriter(out / "pairs.parquet", PAIR_SCHEMA) as pairs_file,
        pq.ParquetWriter(out / "choices.parquet", CHOICE_SCHEMA) as choices_file,
    ):
        for group in range(pairs.num_row_groups):
            table = pairs.read_row_group(group)
            ids = table["pair_id"].to_pylist()
            if contradictory.intersection(ids):
                table = table.filter(pa.array([i not in contradictory for i in ids]))
                ids = table["pair_id"].to_pylist()
            known = [(i, seen.choice(i)) for i in ids]
            chosen = [{"pair_id": i, "choice": c} for i, c in known if c is not None]
            pairs_file.write_table(table)
            choices_file.write_table(pa.Table.from_pylist(chosen, CHOICE_SCHEMA))
            counts["pairs"] += len(ids)
            counts["choices"] += len(chosen)
    with (
        pq.ParquetFile(rows_path) as rows,
        pq.ParquetWriter(out / "rows.parquet", ROW_SCHEMA) as rows_file,
        pq.ParquetWriter(out / "quarantine.parquet", QUARANTINE_SCHEMA) as quarantine_file,
    ):
        for group in range(rows.num_row_groups):
            fates = rows.read_row_group(group).to_pylist()
            for fate in fates:
                if fate["pair_id"] in contradictory:
                    fate |= {"reason": "contradictory choices", "detail": fate["pair_id"]}
            refused = [fate for fate in fates if fate["reason"] is not None]
            columns = [{n: fate[n] for n in QUARANTINE_SCHEMA.names} for fate in refused]
            rows_file.write_table(pa.Table.from_pylist(fates, ROW_SCHEMA))
            quarantine_file.write_table(pa.Table.from_pylist(columns, QUARANTINE_SCHEMA))
            counts["rows"] += len(fates)
            counts["quarantined"] += len(refused)
    pairs_path.unlink()
    rows_path.unlink()
    return counts


def _writable(text: str | None) -> str | None:
    """The text with question marks for lone surrogates, which no file can hold."""
    return None if text is None else text.encode(errors="replace").decode()


def _columns(pair: Pair) -> dict[str, str | None]:
    texts: dict[str, str | None] = {
        "pair_id": pair.pair_id,
        "prompt": pair.prompt,
        "response_1": pair.response_1,
        "response_2": pair.response_2,
    }
    if pair.messages is None:
        return texts
    return texts | {
        "prompt_messages": pair.messages.prompt,
        "response_1_messages": pair.messages.first,
        "response_2_messages": pair.messages.second,
        "tools": pair.messages.tools,
    }


class _SeenPairs:
    """The ids of pairs seen and their choices, on disk in a file that SQLite deletes itself."""

    def __enter__(self) -> "_SeenPairs":
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE seen (id BLOB PRIMARY KEY, choice INT, against INT) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, pair_id: str, choice: int | None) -> bool:
        """Add a pair and return whether it is new; a choice against its earlier one is noted."""
        key = bytes.fromhex(pair_id)
        statement = "INSERT OR IGNORE INTO seen VALUES (?, ?, 0)"
        if self._database.execute(statement, (key, choice)).rowcount == 1:
            return True
        self._database.execute(
            "UPDATE seen SET against = against OR choice <> ?1, choice = COALESCE(choice, ?1) "
            "WHERE id = ?2 AND ?1 IS NOT NULL",
            (choice, key),
        )
        return False

    def choice(self, pair_id: str) -> int | None:
        """The human choice of a pair, from the first of its rows that has one; None if none has."""
        statement = "SELECT choice FROM seen WHERE id = ?"
        found = self._database.execute(statement, (bytes.fromhex(pair_id),)).fetchone()
        return None if found is None else found[0]

    def contradictory(self) -> set[str]:
        rows = self._database.execute("SELECT id FROM seen WHERE against")
        return {key.hex() for (key,) in rows}
