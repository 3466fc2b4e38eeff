"""One pair in many forms, and rows written to files and read again."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.preferences.pair import (
    Comparison,
    DataError,
    Pair,
    Quarantined,
    canonical_pair,
    refusal,
)
from weakteach.preferences.sources import file_source
from weakteach.preferences.surveys import FileSurvey

HH_FILE = Path(__file__).parents[3] / "shared/data/hh-rlhf/harmless-base.jsonl.gz"

PROMPT = "\n\nHuman: What is a heron?\n\nAssistant: A bird.\n\nHuman: Big?\n\nAssistant:"
CHOSEN, REJECTED = " Yes, quite big.", " Yes, but\n\nno."
HISTORY = [
    {"role": "user", "content": "What is a heron?"},
    {"role": "assistant", "content": "A bird."},
    {"role": "user", "content": "Big?"},
]
CHOSEN_MESSAGE = [{"role": "assistant", "content": CHOSEN[1:]}]
REJECTED_MESSAGE = [{"role": "assistant", "content": REJECTED[1:]}]

FORMS = {
    "own": {"prompt": PROMPT, "response_1": CHOSEN, "response_2": REJECTED, "choice": 1},
    "own, the other way": {
        "prompt": PROMPT,
        "response_1": REJECTED,
        "response_2": CHOSEN,
        "choice": 2,
    },
    "explicit": {"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED},
    "explicit with more columns": {
        "prompt": PROMPT,
        "response": CHOSEN,
        "chosen": CHOSEN,
        "rejected": REJECTED,
    },
    "implicit": {"chosen": PROMPT + CHOSEN, "rejected": PROMPT + REJECTED},
    "explicit messages": {
        "prompt": HISTORY,
        "chosen": CHOSEN_MESSAGE,
        "rejected": REJECTED_MESSAGE,
    },
    "implicit messages": {
        "chosen": HISTORY + CHOSEN_MESSAGE,
        "rejected": HISTORY + REJECTED_MESSAGE,
    },
    "messages that repeat the prompt": {
        "prompt": HISTORY,
        "chosen": HISTORY + CHOSEN_MESSAGE,
        "rejected": HISTORY + REJECTED_MESSAGE,
    },
}
EXPECTED = canonical_pair(Comparison("", PROMPT, CHOSEN, REJECTED, 1))


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    cells = [
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
        for row in rows
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(cells)
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_gzip(path: Path, rows: list) -> Path:
    path.write_bytes(gzip.compress(write_jsonl(path.with_suffix(".plain"), rows).read_bytes()))
    return path


WRITERS = {
    "pairs.jsonl": write_jsonl,
    "pairs.json": write_jsonl,
    "pairs.jsonl.gz": write_gzip,
    "pairs.csv": write_csv,
    "pairs.parquet": write_parquet,
}


def read_text(path: Path, text: str | bytes) -> list:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(file_source(path).read())


def labeled(row: Comparison | Quarantined) -> tuple[Pair, int | None]:
    assert isinstance(row, Comparison), row
    return canonical_pair(row)


def row_comparisons(row: dict, place: str) -> list[Comparison | Quarantined]:
    """The only row of a file, read."""
    seen = FileSurvey("f")
    seen.add(row)
    try:
        layout = seen.layout()
    except DataError as error:
        return [Quarantined(place, "refused", str(error))]
    return list(layout.comparisons(row, place))


def row_comparison(row: dict, place: str) -> Comparison | Quarantined:
    """The same of a row of one comparison."""
    (result,) = row_comparisons(row, place)
    return result


def reasons(rows) -> list[str | None]:
    return [row.reason if isinstance(row, Quarantined) else refusal(row) for row in rows]
