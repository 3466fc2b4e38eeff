"""Which pairs are asked, and the files in which they are."""

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakteach.labeling.asking import SHORTLIST, doubt, shortlist, spread_out
from weakteach.labeling.forms import FORMS, write_forms
from weakteach.preferences.pair import ASKED_COLUMNS, Comparison, canonical_pair, refusal
from weakteach.preferences.sources import file_source


def test_small_margins_and_teachers_that_differ_are_in_doubt():
    one = doubt(np.array([[3.0, -0.1, 1.0, -5.0]]), 1.0)
    assert np.argsort(-one).tolist() == [1, 2, 0, 3]
    # The mean of these two teachers is as unsure of 0 as of 1, but on 1 they differ.
    two = doubt(np.array([[0.1, 4.0, 3.0], [-0.1, -4.0, 3.0]]), 1.0)
    assert np.argsort(-two).tolist() == [1, 0, 2]
    assert ((two > 0) & (two <= 1)).all()
    with pytest.raises(ValueError, match="No doubt"):
        doubt(np.zeros((2, 0)), 1.0)


def test_the_shortlist_holds_the_largest_scores_and_of_equal_ones_the_smaller_id():
    score, ids = np.array([0.2, 0.9, 0.2, 0.5]), np.array(["d", "c", "a", "b"])
    assert shortlist(score, ids, 1).tolist() == [1, 3, 2, 0][:SHORTLIST]
    assert len(shortlist(np.ones(100), np.arange(100).astype(str), 3)) == 3 * SHORTLIST


def test_prompts_that_lie_far_apart_are_chosen():
    prompts = [
        "how do I bake bread",
        "how do I bake a bread",
        "how do I bake bread",
        "what is the capital of Peru",
        "what is the capital of Chile",
        "write a poem on the sea",
    ]
    chosen = spread_out(prompts, 3)
    assert chosen[0] == 0
    assert len({min(place, 3) if place < 3 else place for place in chosen}) == 3
    assert sum(place < 3 for place in chosen) == 1
    assert sorted(spread_out(prompts, 10)) == list(range(6))
    assert spread_out(prompts, 10)[-1] == 2  # the same as the first
    assert spread_out([], 3) == []


TEXTS = st.text(min_size=1, max_size=30) | st.sampled_from(
    ["=1+1", '"quoted", and\r\nbroken', "<script>alert(1)</script>", " leading", "x\x00y", "\ufeff"]
)


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.sampled_from([1, 2, None])), min_size=1))
@pytest.mark.parametrize("form", ["csv", "jsonl", "label-studio"])
def test_what_people_fill_in_is_taken_back(tmp_path_factory, rows, form):
    pairs, choices = {}, {}
    for prompt, first, second, choice in rows:
        comparison = Comparison("", prompt, first, second, None)
        if refusal(comparison) is None:
            pair, _ = canonical_pair(comparison)
            pairs[pair.pair_id], choices[pair.pair_id] = pair, choice
    table = pa.Table.from_pylist([vars(pair) for pair in pairs.values()])
    if not len(table):
        return
    out = tmp_path_factory.mktemp("forms")
    write_forms(table, out)
    file = filled_in(out, form, choices)
    taken = {}
    for row in file_source(file).read():
        assert isinstance(row, Comparison), row
        pair, choice = canonical_pair(row)
        assert pair == pairs[pair.pair_id]
        taken[pair.pair_id] = choice
    assert taken == choices


def filled_in(out, form, choices):
    """The file as it comes back from a person, or as Label Studio exports it as CSV."""
    if form == "jsonl":
        file = out / "asked.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        filled = [{**row, "choice": choices[row["pair_id"]]} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in filled))
        return file
    if form == "csv":
        with (out / "asked.csv").open(newline="", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
    else:
        tasks = json.loads((out / "asked.label-studio.json").read_text())
        rows = [task["data"] for task in tasks]
    file = out / "back.csv"
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow([*ASKED_COLUMNS, "choice", "annotator"])
        for row in rows:
            cells = [row[name] for name in ASKED_COLUMNS]
            writer.writerow([*cells, choices[row["pair_id"]] or "", "1"])
    return file


def test_forms_of_tools_name_what_their_views_show(tmp_path):
    pair, _ = canonical_pair(Comparison("", "p", "<b>a</b>", "b", None))
    files = write_forms(pa.Table.from_pylist([vars(pair)]), tmp_path)
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    (task,) = json.loads((tmp_path / "asked.label-studio.json").read_text())
    view = ET.parse(tmp_path / "asked.label-studio.xml")
    shown = {text.attrib["value"].removeprefix("$") for text in view.iter("Text")}
    assert shown == set(task["data"]) - {"pair_id"}
    assert [c.attrib["value"] for c in view.iter("Choice")] == ["1", "2"]
    (record,) = json.loads((tmp_path / "asked.argilla.json").read_text())
    settings = json.loads((tmp_path / "asked.argilla-settings.json").read_text())
    assert {field["name"] for field in settings["fields"]} == set(record) - {"id"}
    assert record["id"] == pair.pair_id


@pytest.mark.parametrize("filled", FORMS)
def test_a_form_that_exists_is_left_as_it_is(tmp_path, filled):
    pair, _ = canonical_pair(Comparison("", "p", "a", "b", None))
    table = pa.Table.from_pylist([vars(pair)])
    blank = {file.name: file.read_bytes() for file in write_forms(table, tmp_path)}
    for name in FORMS:
        (tmp_path / name).unlink()
    (tmp_path / filled).write_text("filled in")
    write_forms(table, tmp_path)
    found = {name: (tmp_path / name).read_bytes() for name in FORMS}
    assert found == {**blank, filled: b"filled in"}
