"""What docs/forms.md and docs/files.md list is what there is, and what the example of
docs/architecture.md shows is what comes out."""

import doctest
import re
from fractions import Fraction
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from judged_teachers import judged

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.evaluation.judge import VERDICT_SCHEMA
from weakteach.evaluation.judged import pairs_table
from weakteach.labeling.annotators import LABEL_SCHEMA
from weakteach.labeling.prompted import ANSWER_SCHEMA
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.forms import CHOICES, FORMS, IDS, NUMBERED, PROMPTS, SYSTEMS
from weakteach.preferences.pair import PAIR_SCHEMA, QUARANTINE_SCHEMA, ROW_SCHEMA
from weakteach.preferences.sources import WorldSource
from weakteach.results.table import RESULTS_SCHEMA
from weakteach.run.export import LABELS_OUT, preferences_schema
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.verdict import Folds

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def codes(text):
    return set(re.findall(r"`([^`\n]+)`", text))


def listed(text):
    return {name for code in codes(text) for name in code.split(", ")}


def test_every_form_is_listed_with_its_columns():
    text = (DOCS / "forms.md").read_text()
    found = listed(text)
    for form in FORMS:
        if stem := next((s for s in NUMBERED if form.name.startswith(s)), None):
            assert {stem, f"{stem}_1"} & found
            continue
        assert form.name in text
        assert {form.first, form.second, *form.one_hot, *form.ratings} <= found, form.name
        assert set(form.prompt) - set(PROMPTS) <= found
        assert set(form.choice) - set(CHOICES) <= found
    assert {*PROMPTS, *CHOICES, *SYSTEMS, *IDS, "tools"} <= found


def test_every_reason_is_listed():
    reasons = set()
    for file in (ROOT / "weakteach").glob("preferences/*.py"):
        text = file.read_text()
        reasons |= set(re.findall(r'(?<!_)refuse\(\s*"([^"]+)"', text))
        reasons |= set(re.findall(r'Quarantined\([^,]+, "([^"]+)"', text))
        reasons |= set(re.findall(r'"reason": "([^"]+)"', text))
    reasons |= {"empty prompt", "empty response", "equal responses", "bad Unicode"}
    assert len(reasons) > 12
    assert reasons <= codes((DOCS / "forms.md").read_text())


@pytest.mark.parametrize(
    "schema",
    [PAIR_SCHEMA, ROW_SCHEMA, QUARANTINE_SCHEMA, LABEL_SCHEMA, LABELS_OUT,
     preferences_schema(None, tools=True), RESULTS_SCHEMA],
)  # fmt: skip
def test_every_column_is_listed(schema):
    assert set(schema.names) <= listed((DOCS / "files.md").read_text())


def listed_of(file):
    """The names in the row of a file of the table of outcomes."""
    rows = [line for line in (DOCS / "files.md").read_text().splitlines() if line.startswith("|")]
    (row,) = (row for row in rows if f"`{file}`" in row.split("|")[2])
    return listed(row.split("|")[3])


def test_every_column_of_verdicts_answers_and_folds_is_listed(tmp_path):
    pairs = Pairs(WorldSource(40), (tokenizer_of(find_model("opt-45k")),))
    folds, store = Folds(pairs.all, 2, 2), Store(tmp_path)
    obtain(store, folds)
    drawn = pq.read_schema(Path(store.path(folds), "folds.parquet"))
    for file, names in (
        ("verdicts.parquet", VERDICT_SCHEMA.names),
        ("answers.parquet", ANSWER_SCHEMA.names),
        ("folds.parquet", drawn.names),
        ("pairs.parquet", pairs_table(judged(pairs=40), 1.0).column_names),
    ):
        assert set(names) <= listed_of(file), file


def test_the_worked_example_of_identity_gives_what_it_shows():
    text = (DOCS / "architecture.md").read_text()
    (example,) = re.findall(r"```python\n(>>>.*?)```", text, re.DOTALL)
    needed = (Pairs, WorldSource, tokenizer_of, find_model, Split, HeldOut, Fraction)
    names = {one.__name__: one for one in needed}
    test = doctest.DocTestParser().get_doctest(example, names, "architecture.md", None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=said.append) == (0, 4), "".join(said)
