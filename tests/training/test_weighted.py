"""The documented way to train on weighted preferences, run as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chat_models import chat_folder
from datasets import Dataset
from families import random_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

import weakteach.training
from weakteach.artifacts.errors import StepError
from weakteach.models.loading import Weights, load_causal
from weakteach.models.tiny.family import base_folder
from weakteach.models.tiny.pretraining import build_tokenizer
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.pair import DataError
from weakteach.training.recipes import Lora
from weakteach.training.weighted import weighted_dpo_trainer
from weakteach.training.worker import lora_config

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


def test_the_package_exports_it_and_imports_torch_only_when_it_is_asked_for():
    assert weakteach.training.weighted_dpo_trainer is weighted_dpo_trainer
    with pytest.raises(AttributeError, match="no attribute 'weighted_sft_trainer'"):
        weakteach.training.weighted_sft_trainer  # noqa: B018
    light = "import sys, weakteach.training.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light]).returncode == 0


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


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("gradient_accumulation_steps", 2, "per_device_train_batch_size"),
        ("max_length", 8, r"Row 0 has \d\d tokens, more than max_length=8, and is not cut"),
        ("loss_type", ["sigmoid", "aot"], "The loss aot is not one of each pair"),
        ("use_weighting", True, "use_weighting has TRL weigh the pairs itself"),
        ("router_aux_loss_coef", 0.01, "router_aux_loss_coef asks for a loss of all tokens"),
    ],
)
def test_what_would_be_ignored_or_weigh_otherwise_is_refused(
    student, tmp_path, option, value, message
):
    rows, how = (
        Dataset.from_dict({**ROWS, "weight": [1.0] * 3}),
        DPOConfig(str(tmp_path), use_cpu=True),
    )
    setattr(how, option, value)
    with pytest.raises(DataError, match=message):
        weighted_dpo_trainer(*student, rows, how)


def test_the_reference_is_without_dropout_whatever_mode_the_model_is_in(tmp_path):
    rows = Dataset.from_dict({**ROWS, "weight": [1.0] * 3})
    how = DPOConfig(str(tmp_path), use_cpu=True)
    model = random_model("opt", dropout=0.5)
    trainers = [
        weighted_dpo_trainer(model.train(mode), build_tokenizer(), rows, how)
        for mode in (False, True)
    ]
    assert torch.equal(*(trainer.reference for trainer in trainers))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_small_updates_would_not_move_are_refused(tmp_path, dtype):
    rows, how = (
        Dataset.from_dict({**ROWS, "weight": [1.0] * 3}),
        DPOConfig(str(tmp_path), use_cpu=True),
    )
    model = random_model("llama").to(dtype)
    with pytest.raises(ValueError, match=r"in which small updates .* dtype=torch.float32"):
        weighted_dpo_trainer(model, build_tokenizer(), rows, how)


@pytest.mark.parametrize(
    ("base", "lora"), [("float32", None), ("float32", Lora(rank=2)), ("bfloat16", Lora(rank=2))]
)
def test_the_reference_is_read_as_the_policy_is_trained(tmp_path, base, lora):
    """In bfloat16, as TRL has it by default: nothing is gained before the first update."""
    how = DPOConfig(
        str(tmp_path), beta=1.0, bf16=True, use_cpu=True, learning_rate=0.0, max_steps=1,
        logging_steps=1, per_device_train_batch_size=3, report_to="none",
    )  # fmt: skip
    trainer = weighted_dpo_trainer(
        random_model("llama").to(getattr(torch, base)),
        build_tokenizer(),
        Dataset.from_dict({**ROWS, "weight": [1.0] * 3}),
        how,
        lora_config(lora),
    )
    trainer.train()
    assert all(w.dtype == torch.float32 for w in trainer.model.parameters() if w.requires_grad)
    row = next(row for row in trainer.state.log_history if "loss" in row)
    assert row["rewards/chosen"] == pytest.approx(0, abs=1e-4)
    assert row["rewards/rejected"] == pytest.approx(0, abs=1e-4)


def test_trls_collator_in_place_of_ours_is_refused(student, tmp_path):
    rows = Dataset.from_dict({**ROWS, "weight": [1.0, 0.5, 0.1]})
    trainer = weighted_dpo_trainer(*student, rows, DPOConfig(str(tmp_path), use_cpu=True))
    trainer.data_collator = DataCollatorForPreference(pad_token_id=0)
    with pytest.raises(StepError, match="was replaced by DataCollatorForPreference: leave"):
        trainer.train()


def messages_of(rows):
    """The rows as conversations, as datasets gives them: what a message lacks is None."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {
        side: [[{"role": roles[side], "content": text, "name": None}] for text in texts]
        for side, texts in rows.items()
    }


@pytest.mark.parametrize("template", ["BOS", None])
def test_messages_are_read_as_trl_reads_them_or_as_their_transcript(tmp_path, template):
    folder = chat_folder(tmp_path / "model", template)
    model, tokenizer = load_causal(Weights(str(folder))), load_tokenizer(folder)
    rows, weights = messages_of(ROWS), [1.0, 0.5, 1.0]
    how = DPOConfig(
        str(tmp_path), use_cpu=True, bf16=False, max_length=None, report_to="none",
        activation_checkpointing=False, gradient_checkpointing=False,
    )  # fmt: skip
    ours = weighted_dpo_trainer(
        model, tokenizer, Dataset.from_dict({**rows, "weight": weights}), how
    )
    if template is None:
        texts = {
            "prompt": [f"\n\nHuman: {text}\n\nAssistant:" for text in ROWS["prompt"]],
            "chosen": [f" {text}" for text in ROWS["chosen"]],
            "rejected": [f" {text}" for text in ROWS["rejected"]],
        }
        rows = {side: texts[side] for side in ROWS}
    theirs = DPOTrainer(
        model=model, args=how, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer
    ).train_dataset
    for pair, row in zip(ours.pairs, theirs, strict=True):
        assert pair.prompt == row["prompt_ids"]
        assert pair.response_1 == row["chosen_ids"]
        assert pair.response_2 == row["rejected_ids"]


def test_what_is_neither_text_nor_messages_is_refused_with_its_row(student, tmp_path):
    how = DPOConfig(str(tmp_path), use_cpu=True)
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c", "weight": 1.0},
        {"prompt": "a", "chosen": None, "rejected": "c", "weight": 1.0},
    ]
    with pytest.raises(DataError, match="Row 1: prompt, chosen and rejected are neither"):
        weighted_dpo_trainer(*student, Dataset.from_list(rows), how)
    said = [{"role": "critic", "content": "a"}]
    rows = [{"prompt": said, "chosen": said, "rejected": said, "weight": 1.0}]
    with pytest.raises(DataError, match="Row 0: bad messages: it holds a message of role 'critic'"):
        weighted_dpo_trainer(*student, Dataset.from_list(rows), how)
