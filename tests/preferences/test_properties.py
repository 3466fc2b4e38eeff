"""What holds for any rows: their order, their form and their encoding change no pair."""

import codecs
import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakteach.preferences.sources import data_source
from weakteach.preferences.table import write_pairs

PLACES = {"source", "place", "id"}


def tables(path: Path):
    """What a file's pairs and choices are, but for where they stand."""
    with TemporaryDirectory() as out:
        source = data_source(str(path))
        counts = write_pairs(
            source.read(), Path(out), source.name, lambda pairs: [1] * len(pairs), 512
        )
        pairs = pq.read_table(f"{out}/pairs.parquet").drop_columns(sorted(PLACES)).to_pylist()
        choices = pq.read_table(f"{out}/choices.parquet").to_pylist()
        rows = pq.read_table(f"{out}/rows.parquet").to_pylist()
    return counts, pairs, {row["pair_id"]: row["choice"] for row in choices}, rows


def write(folder, name, rows):
    path = Path(folder, name)
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith("csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Without what a CSV file or a Unicode one cannot hold.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() and not text.startswith("[")
)
ROWS = st.lists(st.tuples(TEXT, TEXT, TEXT, st.sampled_from([1, 2])), min_size=1, max_size=6)


def compared(rows):
    return [
        {"prompt": p, "response_1": one, "response_2": two, "choice": n} for p, one, two, n in rows
    ] + [{"prompt": "both", "response_1": "x", "response_2": str(n), "choice": n} for n in (1, 2)]


def chosen(rows):
    return [
        {
            "prompt": row["prompt"],
            "chosen": row[f"response_{row['choice']}"],
            "rejected": row[f"response_{3 - row['choice']}"],
        }
        for row in rows
    ]


def swapped(rows):
    return [
        {
            "prompt": row["prompt"],
            "response_1": row["response_2"],
            "response_2": row["response_1"],
            "choice": 3 - row["choice"],
        }
        for row in rows
    ]


@settings(max_examples=40)
@given(ROWS, st.sampled_from(["a.jsonl", "a.csv", "a.parquet"]))
def test_swapped_responses_and_choices_are_the_same_pairs_and_labels(drawn, name):
    rows = compared(drawn)
    with TemporaryDirectory() as folder:
        plain = tables(write(folder, name, rows))
        other = tables(write(folder, f"swapped-{name}", swapped(rows)))
        by_side = tables(write(folder, f"chosen-{name}", chosen(rows)))
    assert plain[:3] == other[:3] == by_side[:3]
    for mine, theirs, row in zip(plain[3], other[3], rows, strict=True):
        assert mine["pair_id"] == theirs["pair_id"]
        if mine["reason"] is None:
            assert mine["swapped"] != theirs["swapped"]
            assert (mine["choice"], theirs["choice"]) == (row["choice"], 3 - row["choice"])


@settings(max_examples=20)
@given(ROWS)
def test_swapped_messages_stay_with_their_texts(drawn):
    def said(role, text):
        return [{"role": role, "content": text}]

    rows = [
        {
            "prompt": said("user", p),
            "chosen": said("assistant", one),
            "rejected": said("assistant", two),
        }
        for p, one, two, _ in drawn
    ] + [{"prompt": said("user", "p"), "chosen": said("assistant", "x"),
          "rejected": said("assistant", "y")}]  # fmt: skip
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    with TemporaryDirectory() as folder:
        plain = tables(write(folder, "a.jsonl", rows))
        other = tables(write(folder, "b.jsonl", turned))
    assert plain[:2] == other[:2]
    assert other[2] == {key: 3 - choice for key, choice in plain[2].items()}
    for pair in plain[1]:
        for side in ("response_1", "response_2"):
            (message,) = json.loads(pair[f"{side}_messages"])
            assert pair[side] == f" {message['content']}"


ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
@settings(max_examples=40)
@given(st.lists(st.tuples(ANY, ANY), min_size=1, max_size=4), st.booleans())
def test_what_is_written_in_any_encoding_is_read_back(encoding, texts, escaped):
    rows = [
        {"prompt": f"p{n} {one}", "chosen": f"a{one}", "rejected": f"b{two}"}
        for n, (one, two) in enumerate(texts)
    ]
    text = "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows)
    cells = io.StringIO(newline="")
    writer = csv.writer(cells, quoting=csv.QUOTE_ALL)
    flat = [[" ".join(value.split()) for value in row.values()] for row in rows]
    writer.writerows([list(rows[0]), *flat])
    with TemporaryDirectory() as folder:
        lines, table = Path(folder, "a.jsonl"), Path(folder, "a.csv")
        lines.write_bytes(MARKS[encoding] + text.encode(encoding))
        table.write_bytes(MARKS[encoding] + cells.getvalue().encode(encoding))
        found = list(data_source(str(lines)).read())
        plain = list(data_source(str(table)).read())
    assert [[c.prompt, c.first, c.second] for c in found] == [list(row.values()) for row in rows]
    assert [[c.prompt, c.first, c.second] for c in plain] == flat
