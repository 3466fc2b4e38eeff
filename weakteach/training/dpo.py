"""Direct preference optimization, the starting model being the reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl.trainer import dpo_trainer as dpo_trainer_module
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from weakteach.models.loading import context_length
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.tokens import PairTokens
from weakteach.training.fitting import find_fit, placed
from weakteach.training.packed import PackedLanguageModel, Part
from weakteach.training.recipes import DpoRecipe
from weakteach.training.worker import (
    TrainingJob,
    from_all,
    load_preferences,
    load_start,
    lora_config,
    rank,
    train_and_save,
    trainer_arguments,
    world_size,
)


class PackedDpoTrainer(PackedLanguageModel, DPOTrainer):
    """TRL's loss on pairs whose first response was chosen, and whose ``reference``
    log-probabilities, of shape [pairs, 2], are known."""

    reference: torch.Tensor

    def __init__(self, *args: Any, **options: Any) -> None:
        with _no_reference_model():
            super().__init__(*args, **options)

    def part_inputs(self, part: Part) -> dict[str, torch.Tensor]:
        """As TRL has them, without the prompts: a column that it skips, then the responses."""
        rows, columns, _ = _places(part)
        longest = max(
            max(len(self.pairs[row].response_1), len(self.pairs[row].response_2))
            for row in part.rows
        )
        scored = torch.zeros(2 * len(part.rows), 1 + longest, dtype=torch.long, device=rows.device)
        scored[rows, 1 + columns] = 1
        reference = self.reference[part.rows].to(rows.device)
        return {
            "input_ids": scored,  # read as labels, which the head has been told
            "attention_mask": scored,
            "completion_mask": scored,
            "ref_chosen_logps": reference[:, 0],
            "ref_rejected_logps": reference[:, 1],
        }

    def answer(self, model: Any, part: Part, **options: Any) -> FusedCausalLMOutput:
        """Fields of shape [2 * pairs, longest response], those of the chosen responses first."""
        out = super().answer(model, part, **options)
        rows, columns, scores = _places(part)
        shape = (2 * len(part.rows), options["labels"].shape[1] - 1)
        for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
            value = getattr(out, name)[0]
            padded = value.new_zeros(shape)
            setattr(out, name, padded.index_put((rows, columns), value[scores]))
        return out

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


@contextmanager
def _no_reference_model() -> Iterator[None]:
    """TRL would load one beside a model that is to be sharded, which would not be asked anything:
    the log-probabilities are known."""
    create = dpo_trainer_module.create_model_from_path
    dpo_trainer_module.create_model_from_path = lambda *_, **__: None
    try:
        yield
    finally:
        dpo_trainer_module.create_model_from_path = create


def _places(part: Part) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row and column in TRL's padded batch, and number of the score that stands there."""
    batch = part.batch
    first, second = (batch.sides[:, side].nonzero()[:, 0] for side in (0, 1))
    rows = torch.cat([batch.pairs[first], len(part.rows) + batch.pairs[second]])
    scores = torch.cat([first, second])
    return rows, batch.columns[scores], scores


def train_dpo(config: dict[str, Any]) -> dict[str, Any]:
    """Train on ``config["job"]``, a TrainingJob with a DpoRecipe. Returns facts for the record."""
    job: TrainingJob = config["job"]
    return train_and_save(dpo_trainer(job), job)


def dpo_trainer(job: TrainingJob) -> PackedDpoTrainer:
    """The model that training starts from is the reference. Its log-probabilities are computed
    once, before training, so that no second model is held or run."""
    recipe: DpoRecipe = job.recipe
    model, tokenizer = load_start(job)
    tokens = load_preferences(job, tokenizer, context_length(model))
    reference = reference_logprobs(job, model, tokens)
    fit = find_fit(job, model, tokens)
    trainer = PackedDpoTrainer(
        tokens,
        job.resources,
        model=placed(model, fit),
        args=DPOConfig(
            **trainer_arguments(job, recipe.schedule, fit),
            beta=recipe.beta,
            loss_type=["sigmoid"],
            precompute_ref_log_probs=True,
        ),
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
    )
    trainer.reference = torch.tensor(reference, dtype=torch.float32)
    return trainer


def reference_logprobs(
    job: TrainingJob, model: PreTrainedModel, tokens: list[PairTokens]
) -> np.ndarray:
    """Of all pairs, shape [pairs, 2]; in a group, each worker computes its share."""
    workers = world_size()
    resources = job.resources
    mine = pair_logprobs(
        model, tokens[rank() :: workers], resources.batch_tokens, resources.attention
    )
    whole = np.empty((len(tokens), 2))
    for worker, share in enumerate(from_all(mine)):
        whole[worker::workers] = share
    return whole
