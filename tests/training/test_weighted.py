"""The documented way to train on weighted preferences, run as it is written."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig

from weakteach.artifacts.errors import StepError
from weakteach.models.tiny.family import base_folder
from weakteach.preferences.pair import DataError
from weakteach.training.weighted import weighted_dpo_trainer

DOCS = Path(__file__).parents[2] / "docs/training.md"
ROWS = {
    "prompt": ["Q: name a color.\nA:", "Q: name a day.\nA:", "Q: name a fruit.\nA:"],
    "chosen": [" blue", " Monday", " a pear"],
    "rejected": [" loud", " seven", " a nail"],
}


@pytest.fixture
def student(tmp_path):
    """The folder of a shipped tiny model."""
    folder = base_folder("opt-45k")
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    model.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    return model, tokenizer


def test_the_documented_lines_train_on_weighted_preferences(student, tmp_path, monkeypatch):
    code = re.search(r"<!-- weighted -->\n```python\n(.*?)```", DOCS.read_text(), re.S)[1]
    (tmp_path / "labeled").mkdir()
    Dataset.from_dict({**ROWS, "weight": [1.0, 0.5, 0.0]}).to_parquet(
        str(tmp_path / "labeled/preferences.parquet")
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(DOCS), "exec"), {})
    before, after = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("student", "aligned")
    )
    moved = [
        not torch.equal(one, other)
        for one, other in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert any(moved)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (None, DataError, "No column weight"),
        ([1.0, float("nan"), 1.0], StepError, "give some above 0, none below"),
        ([0.0, 0.0, 0.0], StepError, "give some above 0, none below"),
    ],
)
def test_weights_that_are_missing_or_none_are_refused(student, tmp_path, weights, error, message):
    rows = ROWS if weights is None else {**ROWS, "weight": weights}
    with pytest.raises(error, match=message):
        weighted_dpo_trainer(
            *student, Dataset.from_dict(rows), DPOConfig(str(tmp_path), use_cpu=True)
        )


def test_gradient_accumulation_is_refused(student, tmp_path):
    rows, how = (
        Dataset.from_dict({**ROWS, "weight": [1.0] * 3}),
        DPOConfig(str(tmp_path), use_cpu=True),
    )
    how.gradient_accumulation_steps = 2
    with pytest.raises(DataError, match="per_device_train_batch_size"):
        weighted_dpo_trainer(*student, rows, how)
