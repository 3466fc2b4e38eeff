"""Scalar rewards of responses under a sequence-classification model."""

from collections.abc import Sequence
from itertools import count

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weakteach.models.reward_forms import Encoded, RewardForm
from weakteach.models.tokens import PairTokens, length_batches


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PairTokens],
    batch_tokens: int,
) -> np.ndarray:
    """Rewards of shape [pairs, 2], float64, each read at the end of prompt + response, which must
    not be longer than the model's context."""
    sides = (
        [pair.prompt + pair.response_1 for pair in pairs],
        [pair.prompt + pair.response_2 for pair in pairs],
    )
    rewards = []
    for side in sides:
        encoded = [{"input_ids": ids} for ids in side]
        rewards.append(_rewards(model, encoded, tokenizer.pad_token_id, batch_tokens))
    return np.stack(rewards, axis=1)


def score_in_form(
    form: RewardForm,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[Encoded],
    batch_tokens: int,
) -> np.ndarray:
    """Rewards of shape [responses], float64, of responses that ``encode`` made in this form."""
    pad = tokenizer.pad_token_id if form == "text" else _pad_id(model, encoded)
    return _rewards(model, encoded, pad, batch_tokens)


def _pad_id(model: PreTrainedModel, encoded: Sequence[Encoded]) -> int:
    """The model's own pad id, else an id that ends no sequence: the head reads the reward at the
    last token with another id."""
    if model.config.pad_token_id is not None:
        return int(model.config.pad_token_id)
    last = {item["input_ids"][-1] for item in encoded}
    return next(token for token in count() if token not in last)


@torch.inference_mode()
def _rewards(
    model: PreTrainedModel, encoded: Sequence[Encoded], pad: int, batch_tokens: int
) -> np.ndarray:
    # The head looks for the last token that is not padding, by the model's own pad id.
    before, model.config.pad_token_id = model.config.pad_token_id, pad
    rewards = np.zeros(len(encoded))
    try:
        for rows in length_batches([len(item["input_ids"]) for item in encoded], batch_tokens):
            batch = _padded([encoded[i] for i in rows], pad)
            inputs = {name: ids.to(model.device) for name, ids in batch.items()}
            rewards[rows] = model(**inputs).logits[:, 0].double().cpu().numpy()
    finally:
        model.config.pad_token_id = before
    return rewards


def _padded(encoded: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """A batch with padding on the right, where attention mask and token types are 0."""
    longest = max(len(item["input_ids"]) for item in encoded)
    batch = {
        name: torch.tensor([item[name] + [0] * (longest - len(item[name])) for item in encoded])
        for name in encoded[0]
    }
    lengths = torch.tensor([len(item["input_ids"]) for item in encoded])
    real = torch.arange(longest) < lengths[:, None]
    batch["input_ids"] = torch.where(real, batch["input_ids"], pad)
    return batch | {"attention_mask": real.long()}
