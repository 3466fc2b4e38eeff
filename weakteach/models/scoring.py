"""Scalar rewards of responses under a sequence-classification model."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weakteach.models.loading import context_length
from weakteach.models.tokens import length_batches, pair_tokens


@torch.inference_mode()
def score_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    batch_tokens: int,
) -> np.ndarray:
    """Rewards of shape [responses], float64, each read at the end of prompt + response, or where
    the model's context ends: what another model wrote may have more tokens here than there."""
    tokens = pair_tokens(tokenizer, prompts, responses, responses)
    context = context_length(model)
    ids = [(pair.prompt + pair.response_1)[:context] for pair in tokens]
    # The head looks for the last token that is not padding, by the model's own pad id.
    model.config.pad_token_id = tokenizer.pad_token_id
    rewards = np.zeros(len(ids))
    for rows in length_batches([len(i) for i in ids], batch_tokens):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
        output = model(**batch.to(model.device)).logits[:, 0]
        rewards[rows] = output.double().cpu().numpy()
    return rewards
