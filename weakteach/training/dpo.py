"""Direct preference optimization, the starting model being the reference."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.models.loading import context_length
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.tokens import PairTokens
from weakteach.training.recipes import DpoRecipe
from weakteach.training.worker import (
    TrainingJob,
    load_preferences,
    load_start,
    lora_config,
    rank,
    train_and_save,
    trainer_arguments,
    world_size,
)


class TokenizedDpoTrainer(DPOTrainer):
    """TRL's trainer on pairs that come with their tokens and reference log-probabilities."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def train_dpo(config: dict[str, Any]) -> dict[str, Any]:
    """Train on ``config["job"]``, a TrainingJob with a DpoRecipe. Returns facts for the record."""
    job: TrainingJob = config["job"]
    return train_and_save(dpo_trainer(job), job)


def dpo_trainer(job: TrainingJob) -> TokenizedDpoTrainer:
    """The model that training starts from is the reference. Its log-probabilities are computed
    once, before training, so that no second model is held or run."""
    recipe: DpoRecipe = job.recipe
    model, tokenizer = load_start(job)
    tokens = load_preferences(job, tokenizer, context_length(model))
    reference = reference_logprobs(job, model, tokens)
    dataset = Dataset.from_dict(
        {
            "prompt_ids": [pair.prompt for pair in tokens],
            "chosen_ids": [pair.response_1 for pair in tokens],
            "rejected_ids": [pair.response_2 for pair in tokens],
            "ref_chosen_logps": reference[:, 0],
            "ref_rejected_logps": reference[:, 1],
        }
    )
    return TokenizedDpoTrainer(
        model=model,
        args=DPOConfig(
            **trainer_arguments(job, recipe.schedule),
            beta=recipe.beta,
            loss_type=["sigmoid"],
            precompute_ref_log_probs=True,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
    )


def reference_logprobs(
    job: TrainingJob, model: PreTrainedModel, tokens: list[PairTokens]
) -> np.ndarray:
    """Of all pairs, shape [pairs, 2]; in a group, each worker computes its share."""
    workers = world_size()
    resources = job.resources
    mine = pair_logprobs(
        model, tokens[rank() :: workers], resources.batch_tokens, resources.attention
    )
    if workers == 1:
        return mine
    shares: list[np.ndarray] = [mine] * workers
    torch.distributed.all_gather_object(shares, mine)
    whole = np.empty((len(tokens), 2))
    for worker, share in enumerate(shares):
        whole[worker::workers] = share
    return whole
