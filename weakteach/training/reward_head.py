"""A scalar reward head, trained with the Bradley-Terry loss on chosen and rejected responses."""

from functools import partial
from typing import Any

import torch
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from weakteach.models.loading import context_length, load_with_head
from weakteach.training.fitting import find_fit, placed
from weakteach.training.packed import PackedRewardModel, Part
from weakteach.training.recipes import RewardRecipe
from weakteach.training.worker import (
    TrainingJob,
    load_preferences,
    load_start,
    lora_config,
    train_and_save,
    trainer_arguments,
)


class PackedRewardTrainer(PackedRewardModel, RewardTrainer):
    """TRL's loss on pairs whose first response was chosen."""

    def part_inputs(self, part: Part) -> dict[str, torch.Tensor]:
        return {"attention_mask": torch.ones_like(part.batch.inputs["input_ids"])}


def train_reward_head(config: dict[str, Any]) -> dict[str, Any]:
    """Train on ``config["job"]``, a TrainingJob with a RewardRecipe. Returns facts for the record.

    Adapters are merged before the model is written: it is always a whole reward model.
    """
    job: TrainingJob = config["job"]
    return train_and_save(reward_trainer(job), job, merge=True)


def reward_trainer(job: TrainingJob) -> PackedRewardTrainer:
    """A trainer of the head together with the whole model, or with adapters. The reward is read at
    the end of prompt + response."""
    recipe: RewardRecipe = job.recipe
    model, tokenizer = load_start(job, partial(load_with_head, seed=job.seed, placed=False))
    tokens = load_preferences(job, tokenizer, context_length(model))
    fit = find_fit(job, model, tokens)
    return PackedRewardTrainer(
        tokens,
        job.resources,
        model=placed(model, fit),
        args=RewardConfig(**trainer_arguments(job, recipe.schedule, fit)),
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora, task="SEQ_CLS"),
    )
