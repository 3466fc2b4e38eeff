"""Log-probabilities of the responses of pairs under a causal language model."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from transformers import PreTrainedModel

from weakteach.models.pair_attention import attending_in_pairs
from weakteach.models.pair_layout import cut_by_tokens, lay_out
from weakteach.models.probe import why_separate
from weakteach.models.resources import Attention
from weakteach.models.target_scores import target_scores
from weakteach.models.tokens import PairTokens


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
    packed = not why_separate(model)
    sums = torch.zeros(len(pairs), 2, dtype=torch.float64, device=model.device)
    with attending_in_pairs(model) if packed else nullcontext():
        for rows in cut_by_tokens(pairs, batch_tokens, packed):
            batch = lay_out([pairs[i] for i in rows], model.device, packed, attention)
            scores = target_scores(model, batch).double()[:, None] * batch.sides
            there = torch.tensor(rows, device=model.device)
            sums.index_add_(0, there[batch.pairs], scores)
    return sums.cpu().numpy()
