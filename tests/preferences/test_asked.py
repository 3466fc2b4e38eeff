"""Pairs that humans were asked about come back beside data of any form and coding."""

import csv
import json

import pyarrow as pa
import pytest
from written import write_jsonl

from weakteach.labeling.forms import write_forms
from weakteach.preferences.pair import Comparison, canonical_pair
from weakteach.preferences.rows import Wishes
from weakteach.preferences.sources import data_source

# Texts of which the readers of other forms would take something out, or make messages.
TEXTS = [
    ("Go", "Go west", "Go east"),
    ("Go", "Go on", "Go off"),
    ("List it.", '[{"role": "user", "content": "a"}]', "n"),
]
PAIRS = [canonical_pair(Comparison("", *texts, 1)) for texts in TEXTS]


def asked_file(folder, form, choices):
    """The pairs as they come back, with these choices: as the CSV, the JSONL or the export."""
    rows = [
        {n: getattr(pair, n) for n in ("pair_id", "prompt", "response_1", "response_2")}
        for pair, _ in PAIRS
    ]
    write_forms(pa.Table.from_pylist(rows), folder / "out")
    if form == "jsonl":
        rows = map(json.loads, (folder / "out/asked.jsonl").read_text().splitlines())
        filled = [{**row, "choice": n} for row, n in zip(rows, choices, strict=True)]
        return write_jsonl(folder / "back.jsonl", filled)
    with (folder / "out/asked.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    more = {"annotation_id": 3, "annotator": 1, "lead_time": 2.5} if form == "export" else {}
    with (folder / "back.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, [*more, *rows[0]])
        writer.writeheader()
        writer.writerows({**more, **row, "choice": n} for row, n in zip(rows, choices, strict=True))
    return folder / "back.csv"


def two(n, **more):
    return {"prompt": f"How {n}?", "response_1": f"a{n}", "response_2": f"b{n}", **more}


# Rows of the user's own, his wishes, and his choices as they are read.
OWN = {
    "0 and 1": ([two(n, choice=n) for n in (0, 1)], (), (), [1, 2]),
    "0 and 1, told": ([two(n, choice=n) for n in (0, 1)], (), ("0", "1"), [1, 2]),
    "2 for the first": ([two(n, choice=n) for n in (1, 2)], (), ("2", "1"), [2, 1]),
    "letters": ([two(n, choice=c) for n, c in enumerate("AB")], (), (), [1, 2]),
    "letters, told": ([two(n, choice=c) for n, c in enumerate("xy")], (), ("x", "y"), [1, 2]),
    "other columns": (
        [{"ask": f"How {n}?", "good": "a", "bad": "b"} for n in (0, 1)],
        ("prompt=ask", "chosen=good", "rejected=bad"), (), [1, 1],
    ),
    "another choice": ([two(n, verdict=n, choice=1) for n in (1, 2)], ("choice=verdict",), (),
                       [1, 2]),
    "another column of choices": ([two(n, winner=n) for n in (1, 2)], (), (), [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "jsonl", "export"])
@pytest.mark.parametrize("case", OWN)
def test_pairs_that_were_asked_about_are_read_as_they_are_beside_any_data(case, form, tmp_path):
    rows, columns, values, expected = OWN[case]
    own = write_jsonl(tmp_path / "own.jsonl", rows)
    choices = [1, 1, 2]
    asked = asked_file(tmp_path, form, choices)
    for files in ([own, asked], [asked, own]):
        source = data_source(list(map(str, files)), Wishes.of(columns, values))
        read = {True: [], False: []}
        for row in source.read():
            read[row.place.startswith("back")].append(row)
        assert [row.preferred for row in read[False]] == expected
        got = [canonical_pair(row) for row in read[True]]
        assert [pair.pair_id for pair, _ in got] == [pair.pair_id for pair, _ in PAIRS]
        assert [choice for _, choice in got] == choices
        assert source.overview().pairs == len(rows) + len(PAIRS)


def test_a_file_with_the_same_columns_but_ids_of_its_own_is_the_users(tmp_path):
    files = [
        write_jsonl(tmp_path / f"sh-{k}.jsonl", [two(n, pair_id=f"{k}{n}", choice=n) for n in ns])
        for k, ns in enumerate(((0, 1), (1,)))
    ]
    source = data_source(list(map(str, files)))
    assert [row.preferred for row in source.read()] == [1, 2, 2]


@pytest.mark.parametrize("wishes", [Wishes.of(["prompt=ask"]), Wishes.of((), ("0", "1"))])
def test_what_is_said_of_columns_is_not_about_pairs_that_were_asked_about(wishes, tmp_path):
    source = data_source(str(asked_file(tmp_path, "csv", [1, 2, 2])), wishes)
    assert [row.preferred for row in source.read()] == [1, 2, 2]
    assert [file.choices for file in source.recognized()] == [
        "1 = first response, 2 = second response"
    ]
