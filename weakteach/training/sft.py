"""Supervised fine-tuning on the chosen responses."""

from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from weakteach.models.loading import context_length
from weakteach.training.recipes import SftRecipe
from weakteach.training.worker import (
    TrainingJob,
    load_preferences,
    load_start,
    lora_config,
    train_and_save,
    trainer_arguments,
)

IGNORED = -100


def train_sft(config: dict[str, Any]) -> dict[str, Any]:
    """Train on ``config["job"]``, a TrainingJob with an SftRecipe. Returns facts for the record."""
    job: TrainingJob = config["job"]
    return train_and_save(sft_trainer(job), job)


def sft_trainer(job: TrainingJob) -> SFTTrainer:
    """The loss is on the chosen responses' tokens (EOS included) alone."""
    recipe: SftRecipe = job.recipe
    model, tokenizer = load_start(job)
    tokens = load_preferences(job, tokenizer, context_length(model))
    dataset = Dataset.from_dict(
        {
            "input_ids": [pair.prompt + pair.response_1 for pair in tokens],
            "labels": [[IGNORED] * len(pair.prompt) + pair.response_1 for pair in tokens],
        }
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(**trainer_arguments(job, recipe.schedule)),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
    )
