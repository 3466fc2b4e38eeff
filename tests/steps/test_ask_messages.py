"""Conversations that humans are asked about come back as the conversations that they were."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_models import chat_folder
from test_reliability import KnownVerdict

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import label_table
from weakteach.labeling.forms import write_forms
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.pair import MESSAGE_COLUMNS
from weakteach.preferences.sources import file_source
from weakteach.steps.asking import AskHumans
from weakteach.steps.data import Labels, Pairs, Part
from weakteach.steps.verdict import NewToTeacher

TEXTS = ("pair_id", "prompt", "response_1", "response_2")
TOOLS = [{"type": "function", "function": {"name": "tap", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "tap", "arguments": {"turn": "left"}}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def answers(number):
    return [turn("assistant", f"Turn it {number} times.")], [turn("assistant", f"No, {number}.")]


# Conversations of every kind: with a system turn, several turns, tools, and a plain text.
SAID = [
    {"prompt": [turn("system", "Be short."), turn("user", "How do I mend a tap?")]},
    {"prompt": [turn("user", "A tap?"), turn("assistant", "Yes?"), turn("user", "It drips.")]},
    {"prompt": [turn("user", "Open the tap.")], "tools": TOOLS},
]
ROWS = [
    {**row, "response_1": first, "response_2": second}
    for number, row in enumerate(SAID)
    for first, second in [answers(number)]
]
ROWS[2]["response_1"] = [
    turn("assistant", "", tool_calls=[CALL]), turn("tool", "open"), turn("assistant", "Done."),
]  # fmt: skip
PLAIN = {"prompt": "And the sink?", "response_1": "Scrub it.", "response_2": "Leave it."}


@dataclass(frozen=True)
class Unsure(Labels):
    """Labels of all pairs of a part, with small margins."""

    part: Part

    def compute(self, workspace):
        ids = self.part.read(workspace.store, ["pair_id"])["pair_id"].to_pylist()
        margins = np.linspace(0.1, 0.2, len(ids))
        labels = label_table(ids, np.stack([margins, 0 * margins], axis=1))
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {}


def lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def filled_in(out: Path, form: str) -> Path:
    """The file as it comes back from a person, or as Label Studio exports it as CSV."""
    if form == "jsonl":
        rows = [json.loads(line) for line in (out / "asked.jsonl").read_text().splitlines()]
        return lines(out / "back.jsonl", [{**row, "choice": 1} for row in rows])
    if form == "csv":
        with (out / "asked.csv").open(newline="", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
    else:
        rows = [one["data"] for one in json.loads((out / "asked.label-studio.json").read_text())]
    with (out / "back.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, [*rows[0], *(() if form == "csv" else ("choice",))])
        writer.writeheader()
        writer.writerows({**row, "choice": 1} for row in rows)
    return out / "back.csv"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tokenizer_of(find_model(str(chat_folder(tmp_path_factory.mktemp("chat"), "plain"))))


def asked_about(tmp_path, tokenizer, rows):
    """A store, the pairs of the rows, and the table of those that humans are asked about."""
    store = Store(tmp_path / "store")
    many = Pairs(file_source(lines(tmp_path / "many.jsonl", rows)), (tokenizer,))
    known = {"prompt": "Else?", "response_1": "Yes.", "response_2": "No.", "choice": 1}
    few = Pairs(file_source(lines(tmp_path / "few.jsonl", [known])), (tokenizer,))
    labels = Unsure(many.all)
    asking = AskHumans((labels,), NewToTeacher(labels, few.all), KnownVerdict(1.0), 10)
    assert obtain(store, asking)["facts"]["asked"] == len(rows)
    return store, many, pq.read_table(f"{store.path(asking)}/asked.parquet")


@pytest.mark.parametrize("form", ["jsonl", "csv", "label-studio"])
def test_messages_and_tools_come_back_with_the_file(tmp_path, tokenizer, form):
    store, many, asked = asked_about(tmp_path, tokenizer, [*ROWS, PLAIN])
    write_forms(asked, tmp_path / "forms")
    back = Pairs(file_source(filled_in(tmp_path / "forms", form)), (tokenizer,))
    assert obtain(store, back)["facts"]["choices"] == len(ROWS) + 1
    columns = [*TEXTS, *MESSAGE_COLUMNS, "n_tokens"]
    before, after = (
        pairs.all.read(store, columns).sort_by("pair_id").to_pylist() for pairs in (many, back)
    )
    assert after == before
    assert sum(row["prompt_messages"] is not None for row in after) == len(ROWS)
    assert sum(row["tools"] is not None for row in after) == 1


def test_texts_alone_have_no_columns_of_messages(tmp_path, tokenizer):
    _, _, asked = asked_about(tmp_path, tokenizer, [PLAIN])
    assert asked.column_names == [*TEXTS, "doubt"]
    write_forms(asked, tmp_path / "forms")
    header = (tmp_path / "forms/asked.csv").read_text().splitlines()[0]
    assert header == ",".join(f'"{name}"' for name in (*TEXTS, "choice"))
