"""Direct preference optimization. The model that training starts from is the reference."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl.trainer import dpo_trainer as dpo_trainer_module
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from weakteach.artifacts.errors import StepError
from weakteach.models.loading import context_length, load_causal
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.memory import Fit
from weakteach.models.tokens import PairTokens
from weakteach.training.fitting import find_fit, placed, require_room
from weakteach.training.packed import PackedLanguageModel, Part
from weakteach.training.recipes import EXPECT_WRONG_LABELS, DpoRecipe, Loss
from weakteach.training.stopping import StopWhenWorse
from weakteach.training.worker import (
    TrainingJob,
    from_all,
    label_column,
    load_preferences,
    load_start,
    lora_config,
    rank,
    train_and_save,
    trainer_arguments,
    world_size,
)

# TRL's name of each loss.
TRL_LOSSES: dict[Loss, str] = {
    "dpo": "sigmoid", "ipo": "ipo", "rdpo": "robust", "cdpo": "robust", "hinge": "hinge",
}  # fmt: skip
# Just below 1/2, the noise of a label without margin, for which TRL's smoothing is infinite.
MOST_NOISE = 0.499


class PackedDpoTrainer(PackedLanguageModel, DPOTrainer):
    """TRL's loss on pairs whose first response was chosen, and whose ``reference``
    log-probabilities, of shape [pairs, 2], are known.

    With ``weights`` of shape [pairs], none of them negative, the loss of an update is the weighted
    mean over its pairs on all workers: a pair of weight 0 has no part in it. ``smoothing`` of shape
    [pairs] is TRL's label smoothing for each pair; TRL itself has one number for all pairs.
    """

    reference: torch.Tensor
    weights: torch.Tensor | None = None
    smoothing: torch.Tensor | None = None
    label_smoothing: Any  # TRL's is a number

    def __init__(self, *args: Any, **options: Any) -> None:
        with _no_reference_model():
            super().__init__(*args, **options)

    def weigh(self, weights: torch.Tensor) -> None:
        """Make the loss a weighted mean, with these ``weights``."""
        self.weights = weights
        self.use_weighting = True  # else TRL reads none of them

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        if self.weights is not None:
            total = self.weights[inputs["rows"].cpu()].sum().to(self.args.device)
            if world_size() > 1:
                torch.distributed.all_reduce(total)
            # If all weights of an update are 0, so is its loss, whatever it is divided by.
            self._worker_weight = total.item() / world_size() or 1.0
        return super().training_step(model, inputs, num_items_in_batch)

    def scale(self, loss: torch.Tensor, part: Part) -> torch.Tensor:
        if self.weights is None:
            return super().scale(loss, part)
        return loss * (len(part.rows) / self._worker_weight)  # weighted sum over sum of weights

    def part_inputs(self, part: Part) -> dict[str, torch.Tensor]:
        """The batch as TRL lays it out, but without the prompts: a column that TRL skips, then the
        responses."""
        if self.smoothing is not None:
            self.label_smoothing = self.smoothing[part.rows].to(self.args.device)
        rows, columns, _ = _places(part)
        longest = max(
            max(len(self.pairs[row].response_1), len(self.pairs[row].response_2))
            for row in part.rows
        )
        scored = torch.zeros(2 * len(part.rows), 1 + longest, dtype=torch.long, device=rows.device)
        scored[rows, 1 + columns] = 1
        # Without a prompt, a response's first token is not scored, but TRL's lengths count it.
        bare = [number for number, row in enumerate(part.rows) if not self.pairs[row].prompt]
        scored[bare, 0] = scored[[len(part.rows) + number for number in bare], 0] = 1
        reference = self.reference[part.rows].to(rows.device)
        return {
            "input_ids": scored,  # TRL passes it as labels; the head gets targets of its own
            "attention_mask": scored,
            "completion_mask": scored,
            "ref_chosen_logps": reference[:, 0],
            "ref_rejected_logps": reference[:, 1],
        }

    def answer(self, model: Any, part: Part, **options: Any) -> FusedCausalLMOutput:
        """The model's answer with fields of shape [2 * pairs, longest response], chosen responses
        first."""
        out = super().answer(model, part, **options)
        rows, columns, scores = _places(part)
        shape = (2 * len(part.rows), options["labels"].shape[1] - 1)
        for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
            value = getattr(out, name)[0]
            padded = value.new_zeros(shape)
            setattr(out, name, padded.index_put((rows, columns), value[scores]))
        if self.weights is not None:
            assert out.log_probs is not None
            out.log_sum_sq_probs = self._as_trl_weighs(out.log_probs.detach(), rows, columns, part)
        return out

    def _as_trl_weighs(
        self, log_probs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, part: Part
    ) -> torch.Tensor:
        """Values of ``log_sum_sq_probs`` with which TRL's weighting of pairs (``use_weighting``:
        WPO, Zhou et al. 2024, eq. 2) gives our weights. TRL's weight of a response is exp(mean over
        scored tokens of log_probs - log_sum_sq_probs), and that of a pair the product over its
        responses. These values, in the shape of the log-probabilities, make it the pair's weight
        for its first response that has a scored token, and 1 for the other."""
        assert self.weights is not None
        pairs = len(part.rows)
        scored = torch.bincount(rows, minlength=2 * pairs) > 0
        carries = torch.cat([scored[:pairs], scored[pairs:] & ~scored[:pairs]])
        log_weights = self.weights[part.rows].to(rows.device).log().repeat(2)
        carried = torch.where(carries, log_weights, 0)[rows]
        return log_probs.index_put((rows, columns), log_probs[rows, columns] - carried)

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


@contextmanager
def _no_reference_model() -> Iterator[None]:
    """Keep TRL from loading a reference model, as it does beside a model that is to be sharded.
    Nothing would be asked of it: the log-probabilities are known."""
    of_trl: Any = dpo_trainer_module
    create = of_trl.create_model_from_path
    of_trl.create_model_from_path = lambda *_, **__: None
    try:
        yield
    finally:
        of_trl.create_model_from_path = create


def _places(part: Part) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each score of each response: row and column in TRL's padded batch, and the score's
    number. A score that belongs to both responses of a pair comes twice."""
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
    """A trainer whose reference is the model that training starts from. Its log-probabilities are
    computed once, before training, so that no second model is held or run.

    If the job has held-out pairs, training stops after the first epoch whose loss on them is not
    below that of the epoch before. Raises StepError if such a training would be sharded.
    """
    recipe: DpoRecipe = job.recipe
    model, tokenizer = load_start(job, partial(load_causal, placed=False))
    require_room(job, model)
    placed(model, Fit())  # whole, to be read for the reference, however it is trained
    tokens = load_preferences(job, tokenizer, context_length(model))
    reference = reference_logprobs(job, model, tokens)
    held_out = None
    if job.held_out is not None:
        others = replace(job, pairs=job.held_out[0], labels=job.held_out[1])
        pairs = load_preferences(others, tokenizer, context_length(model))
        held_out = HeldOutLoss(job, pairs, reference_logprobs(job, model, pairs))
    fit = find_fit(job, model, tokens)
    if held_out is not None and fit.shards > 1:
        raise StepError("A training that stops by held-out pairs is not sharded: --fit whole")
    trainer = PackedDpoTrainer(
        tokens,
        job.resources,
        model=placed(model, fit),
        args=DPOConfig(
            **trainer_arguments(job, recipe.schedule, fit),
            beta=recipe.beta,
            loss_type=[TRL_LOSSES[recipe.loss]],
            precompute_ref_log_probs=True,
        ),
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora),
    )
    trainer.reference = torch.tensor(reference, dtype=torch.float32)
    if held_out is not None:
        epoch = math.ceil(len(tokens) / recipe.schedule.batch)
        trainer.add_callback(StopWhenWorse(partial(held_out.of, trainer.plain_model), epoch))
    if recipe.weighted:
        trainer.weigh(check_weights(label_column(job, "weight", "A weighted loss")))
    if recipe.loss in EXPECT_WRONG_LABELS:
        trainer.smoothing = label_smoothing(job, recipe, len(tokens))
    return trainer


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss of plain DPO, whatever the loss of the training, on ``pairs`` whose first response
    was chosen. ``reference`` holds their log-probabilities [pairs, 2] before training."""

    job: TrainingJob
    pairs: list[PairTokens]
    reference: np.ndarray

    def of(self, model: PreTrainedModel) -> float:
        """The mean loss of a model in training mode, which is left in that mode."""
        model.eval()
        gained = reference_logprobs(self.job, model, self.pairs) - self.reference
        model.train()
        margin = self.job.recipe.beta * (gained[:, 0] - gained[:, 1])
        return float(np.logaddexp(0, -margin).mean())


def check_weights(weights: torch.Tensor) -> torch.Tensor:
    """Return the weights of all pairs, shape [pairs]. Raises StepError if one is negative, infinite
    or no number, or if none is positive."""
    if not ((weights >= 0) & weights.isfinite()).all() or not weights.any():
        raise StepError(
            f"Weights from {weights.min():g} to {weights.max():g}: give some above 0, none below"
        )
    return weights


def label_smoothing(job: TrainingJob, recipe: DpoRecipe, pairs: int) -> torch.Tensor:
    """The smoothing s, shape [pairs], for TRL's "robust" loss, ((1 - s)·l - s·l') / (1 - 2s), where
    l and l' are the losses of the label and of the other choice.

    With s the noise ε it is robust DPO. With s = -ε / (1 - 2ε) it is (1 - ε)·l + ε·l', conservative
    DPO, which TRL does not have. Raises StepError for a probability outside of [½, 1].
    """
    if recipe.soft:
        probability = label_column(job, "probability", "A loss with soft labels")
        if ((probability < 0.5) | (probability > 1)).any():
            raise StepError("A label's probability is not from one half to 1")
        noise = (1 - probability).clamp(max=MOST_NOISE)
    else:
        noise = torch.full((pairs,), recipe.noise)
    return noise if recipe.loss == "rdpo" else -noise / (1 - 2 * noise)


def reference_logprobs(
    job: TrainingJob, model: PreTrainedModel, tokens: list[PairTokens]
) -> np.ndarray:
    """The log-probabilities of the responses of all pairs, shape [pairs, 2], computed as training
    computes them. In a group, each worker computes its share of them."""
    workers = world_size()
    resources = job.resources
    # As the trainer has it by its argument bf16.
    mixed = torch.autocast(model.device.type, torch.bfloat16, enabled=job.dtype == "bfloat16")
    with mixed:
        mine = pair_logprobs(
            model, tokens[rank() :: workers], resources.batch_tokens, resources.attention
        )
    whole = np.empty((len(tokens), 2))
    for worker, share in enumerate(from_all(mine)):
        whole[worker::workers] = share
    return whole
