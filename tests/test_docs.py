"""What docs/forms.md and docs/files.md list is what there is."""

import re
from pathlib import Path

import pytest

from weakteach.labeling.annotators import LABEL_SCHEMA
from weakteach.preferences.forms import CHOICES, FORMS, IDS, NUMBERED, PROMPTS, SYSTEMS
from weakteach.preferences.pair import PAIR_SCHEMA, QUARANTINE_SCHEMA, ROW_SCHEMA
from weakteach.run.export import LABELS_OUT, preferences_schema

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
     preferences_schema(None, tools=True)],
)  # fmt: skip
def test_every_column_is_listed(schema):
    assert set(schema.names) <= listed((DOCS / "files.md").read_text())
