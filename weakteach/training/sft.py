"""Supervised fine-tuning on the chosen responses."""

from functools import partial
from typing import Any

import torch
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from weakteach.models.loading import context_length, load_causal
from weakteach.models.tokens import PairTokens
from weakteach.training.fitting import find_fit, placed
from weakteach.training.packed import PackedLanguageModel, Part
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


class PackedSftTrainer(PackedLanguageModel, SFTTrainer):
    """TRL's loss on the tokens of first responses: the mean over all such tokens of an update."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.model_accepts_loss_kwargs = True  # TRL's loss takes the token count in any case

    def collate(self, examples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """The batch with labels as TRL lays them out, by which the Trainer counts tokens, but
        without the prompts: one ignored label if there is a prompt, then the response."""
        batch = super().collate(examples)
        pairs = [self.pairs[row] for row in batch["rows"].tolist()]
        ids = [[*([IGNORED] if p.prompt else []), *p.response_1] for p in pairs]
        longest = max(map(len, ids), default=0)
        padded = [row + [IGNORED] * (longest - len(row)) for row in ids]
        labels = torch.tensor(padded, dtype=torch.long)
        return {**batch, "labels": labels}

    def part_inputs(self, part: Part) -> dict[str, torch.Tensor]:
        return {"attention_mask": torch.ones_like(part.batch.targets)}

    def scale(self, loss: torch.Tensor, part: Part) -> torch.Tensor:
        return loss  # the sum over the part's tokens, divided by the number of all tokens


def train_sft(config: dict[str, Any]) -> dict[str, Any]:
    """Train on ``config["job"]``, a TrainingJob with an SftRecipe. Returns facts for the record."""
    job: TrainingJob = config["job"]
    return train_and_save(sft_trainer(job), job)


def sft_trainer(job: TrainingJob) -> PackedSftTrainer:
    """A trainer whose loss is on the tokens of the chosen responses (EOS included) alone."""
    recipe: SftRecipe = job.recipe
    model, tokenizer = load_start(job, partial(load_causal, placed=False))
    tokens = load_preferences(job, tokenizer, context_length(model))
    chosen = [PairTokens(pair.prompt, pair.response_1, []) for pair in tokens]
    fit = find_fit(job, model, chosen)
    return PackedSftTrainer(
        chosen,
        job.resources,
        model=placed(model, fit),
        args=SFTConfig(**trainer_arguments(job, recipe.schedule, fit)),
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
    )
