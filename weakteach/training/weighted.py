"""DPO's losses on preferences with weights, for users of TRL who have no store."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.utils import remove_none_values

from weakteach.models.logprobs import pair_logprobs
from weakteach.models.resources import Resources
from weakteach.models.tokens import PairTokens, pair_tokens
from weakteach.preferences.messages import (
    ASSISTANT,
    Messages,
    Refusal,
    dumped,
    response_text,
    text_or_messages,
    tools_text,
    transcript,
)
from weakteach.preferences.pair import DataError, MessagesOf
from weakteach.training.dpo import PackedDpoTrainer, check_weights
from weakteach.training.worker import train_in_float32

COLUMNS = ("prompt", "chosen", "rejected", "weight")
# TRL's losses that are defined on a whole batch, in which a pair can have no weight.
OF_A_BATCH = {"aot", "aot_unpaired", "sft"}


def weighted_dpo_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    preferences: Dataset,
    args: DPOConfig,
    peft_config: PeftConfig | None = None,
    resources: Resources | None = None,
) -> PackedDpoTrainer:
    """TRL's DPO trainer with a weight for each pair. The loss of an update is Σ w·l / Σ w over its
    pairs, w being the weight of a pair and l its loss by the ``loss_type`` of ``args``.

    ``preferences`` has the columns ``prompt``, ``chosen``, ``rejected`` (texts, or messages as TRL
    has them, with ``tools`` where any may be called) and ``weight`` (a number from 0), one row a
    pair. Messages are read through the tokenizer's chat template, if it has one. An update takes
    ``args.per_device_train_batch_size`` pairs on each worker, which go through the model in parts
    of ``resources.train_tokens`` tokens. The model as it is given is the reference, which is read
    as the policy is trained: under the autocast of ``args``.

    Raises ValueError if weights that would be trained are in bfloat16 or float16.
    Raises DataError for a column that is missing or holds something else, for a pair of more than
    ``args.max_length`` tokens (none is cut), for a ``loss_type`` that is not defined for each pair,
    for TRL's own weights (``use_weighting``), for the auxiliary loss of a mixture of experts
    (``router_aux_loss_coef``), and for gradient accumulation, whose place the parts take. Raises
    StepError if one of the weights is negative or no number, or if none is positive.
    """
    if missing := [name for name in COLUMNS if name not in preferences.column_names]:
        raise DataError(f"No column {', '.join(missing)} among {preferences.column_names}")
    if args.gradient_accumulation_steps > 1:
        raise DataError("Give all pairs of an update as per_device_train_batch_size")
    if batchwise := sorted(OF_A_BATCH.intersection(args.loss_type)):
        raise DataError(f"The loss {batchwise[0]} is not one of each pair, so none can be weighed")
    if args.use_weighting:
        raise DataError("use_weighting has TRL weigh the pairs itself: leave it out")
    if args.router_aux_loss_coef:
        raise DataError(
            "router_aux_loss_coef asks for a loss of all tokens of an update, which goes through "
            "the model in parts: leave it out"
        )
    rows = [_read(row, number) for number, row in enumerate(preferences)]
    prompts, chosen, rejected, messages = (list(column) for column in zip(*rows, strict=True))
    tokens = pair_tokens(tokenizer, prompts, chosen, rejected, messages)
    _refuse_longer(tokens, args.max_length)
    resources = resources or Resources()
    if peft_config is None:
        _refuse_half(model)
    model.eval()  # a trainer leaves it with dropout
    ours = copy(args)
    ours.precompute_ref_log_probs, ours.remove_unused_columns, ours.max_length = True, False, None
    trainer = PackedDpoTrainer(
        tokens,
        resources,
        model=model,
        args=ours,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    train_in_float32(trainer)
    # After the trainer has put the model on its device.
    with trainer.accelerator.autocast(), _without_adapters(trainer.model):
        reference = pair_logprobs(
            trainer.plain_model, tokens, resources.batch_tokens, resources.attention
        )
    trainer.reference = torch.tensor(reference, dtype=torch.float32)
    trainer.weigh(check_weights(torch.tensor(preferences["weight"][:], dtype=torch.float32)))
    return trainer


def _refuse_half(model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"{name} is in {str(weight.dtype).removeprefix('torch.')}, in which small updates "
                "are rounded away: load the model with dtype=torch.float32 (bf16=True in args "
                "computes in bfloat16 all the same), or give a peft_config"
            )


def _without_adapters(model: Any) -> AbstractContextManager[None]:
    return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()


def _refuse_longer(tokens: Sequence[PairTokens], max_length: int | None) -> None:
    for number, pair in enumerate(tokens):
        if max_length is not None and pair.longest > max_length:
            raise DataError(
                f"Row {number} has {pair.longest} tokens, more than max_length={max_length}, and "
                "is not cut: leave such rows out, or give another max_length, None for any"
            )


def _read(row: Any, number: int) -> tuple[str, str, str, MessagesOf | None]:
    """The prompt, chosen and rejected text of a row and, if the row holds messages, those
    messages."""
    sides = [row[name] for name in COLUMNS[:3]]
    if all(isinstance(side, str) for side in sides):
        return (*sides, None)
    if not all(isinstance(side, list) for side in sides):
        raise DataError(f"Row {number}: prompt, chosen and rejected are neither texts nor messages")
    try:
        prompt, chosen, rejected = (
            cast(Messages, text_or_messages(remove_none_values(side), "it")) for side in sides
        )
        texts = transcript(prompt) + ASSISTANT, response_text(chosen), response_text(rejected)
        said = [dumped(side) for side in (prompt, chosen, rejected)]
        tools = tools_text(row.get("tools"), "tools")
    except Refusal as refusal:
        raise DataError(f"Row {number}: {refusal.reason}: {refusal.detail}") from refusal
    return (*texts, MessagesOf(said[0], said[1], said[2], tools))
