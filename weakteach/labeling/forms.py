"""Pairs for humans to label, as files that people and labeling tools read.

A person writes 1 or 2 into ``choice`` in the CSV or JSONL file, or leaves it empty. The file is
given back without conversion, as ``--labeled``, and so is the CSV export of Label Studio, where the
choice has the same name. Messages stand in columns of their own, which come back with the file.
Texts are written as they are in the data. They may begin with what a spreadsheet takes for a
formula: import the CSV's columns as text, or use the JSONL.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from weakteach.preferences.pair import ASKED_COLUMNS, MESSAGE_COLUMNS

FORMS = (
    "asked.csv",
    "asked.jsonl",
    "asked.argilla.json",
    "asked.argilla-settings.json",
    "asked.label-studio.json",
    "asked.label-studio.xml",
)
QUESTION = "Which response is better?"

LABEL_STUDIO_VIEW = f"""<View>
  <Header value="{QUESTION}"/>
  <Text name="prompt_text" value="$prompt"/>
  <Header value="1"/>
  <Text name="response_1_text" value="$response_1"/>
  <Header value="2"/>
  <Text name="response_2_text" value="$response_2"/>
  <Choices name="choice" toName="prompt_text" choice="single-radio" showInline="true">
    <Choice value="1"/>
    <Choice value="2"/>
  </Choices>
</View>
"""


def write_forms(asked: pa.Table, out: Path) -> tuple[Path, ...]:
    """Write the pairs ``asked`` (ASKED_COLUMNS and, where they have messages, MESSAGE_COLUMNS, in
    the order in which to ask) into the folder ``out``:

    - ``asked.csv`` and ``.jsonl`` for a person, with an empty ``choice``;
    - ``asked.argilla.json``, records for ``dataset.records.log`` of an Argilla data set with
      the text fields and the label question ``choice`` of ``asked.argilla-settings.json``;
    - ``asked.label-studio.json``, tasks to import into a Label Studio project with the
      labeling interface ``asked.label-studio.xml``.

    Returns the files. Those that exist are left as they are: a person may have filled them in.
    """
    out.mkdir(parents=True, exist_ok=True)
    columns = [*ASKED_COLUMNS, *(name for name in MESSAGE_COLUMNS if name in asked.column_names)]
    rows = asked.select(columns).to_pylist()
    texts = (
        _csv(columns, rows),
        "".join(f"{json.dumps({**row, 'choice': None})}\n" for row in rows),
        _json([_argilla(row) for row in rows]),
        _json(ARGILLA_SETTINGS),
        _json([{"data": row} for row in rows]),
        LABEL_STUDIO_VIEW,
    )
    files = tuple(out / name for name in FORMS)
    for file, text in zip(files, texts, strict=True):
        if not file.exists():
            file.write_bytes(text.encode())
    return files


def _csv(columns: list[str], rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow([*columns, "choice"])
    writer.writerows([[*row.values(), ""] for row in rows])
    return text.getvalue()


ARGILLA_SETTINGS = {
    "guidelines": QUESTION,
    "fields": [
        {"name": name, "type": "text", "required": True}
        for name in ("prompt", "response_1", "response_2")
    ],
    "questions": [
        {"name": "choice", "type": "label", "title": QUESTION, "labels": ["1", "2"]},
    ],
}


def _argilla(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["pair_id"], **{name: row[name] for name in ASKED_COLUMNS[1:]}}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
