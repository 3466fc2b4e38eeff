"""Log-probabilities of the responses of pairs under a causal language model."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from transformers import PreTrainedModel

from weakteach.models.pair_attention import attending_in_pairs
from weakteach.models.pair_layout import (
    Batch,
    cut_by_tokens,
    lay_out,
)
from weakteach.models.probe import why_separate
from weakteach.models.resources import Attention
from weakteach.models.tokens import PairTokens

# Logits that exist at a time. 16 MiB in float32: they stay in a CPU's cache, and are not so few
# that the matrix product runs below its speed.
CHUNK_LOGITS = 1 << 22


@torch.inference_mode()
def pair_logprobs(
    model: PreTrainedModel,
    pairs: Sequence[PairTokens],
    batch_tokens: int,
    attention: Attention = "sdpa",
) -> np.ndarray:
    """Summed log p(response | prompt), float64 of shape [pairs, 2].

    The prompt is read once per pair, by the ``attention`` asked for, where a probe shows that the
    model can; else once per response, by the model's own, with a warning. Pairs of similar length
    go together, in batches of at most ``batch_tokens`` tokens (one longer pair is a batch of its
    own). Logits exist at response tokens only, a chunk at a time; log-probabilities are in float32,
    their sums in float64. The first token of a response without any prompt has nothing before it
    and counts as 0. Raises ModelError if the model computes its logits in a way that is not known
    here.
    """
    if not pairs:
        return np.empty((0, 2))
    packed = not why_separate(model, _scores)
    sums = torch.zeros(len(pairs), 2, dtype=torch.float64, device=model.device)
    with attending_in_pairs(model) if packed else nullcontext():
        for rows in cut_by_tokens(pairs, batch_tokens, packed):
            batch = lay_out([pairs[i] for i in rows], model.device, packed, attention)
            scores = _scores(model, batch).double()[:, None] * batch.sides
            there = torch.tensor(rows, device=model.device)
            sums.index_add_(0, there[batch.pairs], scores)
    return sums.cpu().numpy()


def _scores(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Log-probabilities of the batch's targets, float32, shape [targets]."""
    hidden = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
    hidden = hidden.flatten(0, 1)
    scores = torch.empty(len(batch.targets), device=hidden.device)
    step = max(1, CHUNK_LOGITS // model.get_output_embeddings().weight.shape[0])
    for start in range(0, len(scores), step):
        chunk = slice(start, start + step)
        logits = _logits(model, hidden[batch.predictors[chunk]]).float()
        chosen = logits.gather(-1, batch.targets[chunk, None])[:, 0]
        # log_softmax adds the many small terms to the large one by one, where they get lost.
        scores[chunk] = chosen - logits.logsumexp(-1)
    return scores


def _logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """What the model's own forward makes of hidden states of shape [tokens, width]."""
    logits = model.get_output_embeddings()(hidden)
    config = model.config.get_text_config()
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits = (logits / cap).tanh() * cap
    return logits
