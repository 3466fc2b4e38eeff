"""Log-probabilities of the responses of pairs under causal language models."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import numpy as np
import torch
from transformers import PreTrainedModel

from weakteach.models.loading import PolicyAndReference
from weakteach.models.pair_attention import attending_in_pairs
from weakteach.models.pair_layout import cut_by_tokens, lay_out
from weakteach.models.probe import why_separate
from weakteach.models.resources import Attention
from weakteach.models.target_scores import target_scores
from weakteach.models.tokens import PairTokens

# Opens a context in which a model may be used.
Reader = Callable[[], AbstractContextManager[PreTrainedModel]]


def pair_logprobs(
    model: PreTrainedModel,
    pairs: Sequence[PairTokens],
    batch_tokens: int,
    attention: Attention = "sdpa",
) -> np.ndarray:
    """Summed log p(response | prompt), float64 of shape [pairs, 2].

    Where a probe shows that the model can, the prompt is read once per pair, by the given
    ``attention``; else it is read once per response, by the model's own attention, with a warning.
    Pairs of similar length go together, in batches of at most ``batch_tokens`` tokens (a longer
    pair is a batch of its own). Logits exist at response tokens only, a chunk at a time;
    log-probabilities are in float32, their sums in float64. The first token of a response without
    any prompt has nothing before it and counts as 0. Raises ModelError if the model computes its
    logits in a way that is not known here.
    """
    return _logprobs([lambda: nullcontext(model)], pairs, batch_tokens, attention)[0]


def log_ratios(
    both: PolicyAndReference,
    pairs: Sequence[PairTokens],
    batch_tokens: int,
    attention: Attention = "sdpa",
) -> np.ndarray:
    """Summed log π(response | prompt) - log π_ref(response | prompt), float64 of shape [pairs, 2],
    each as ``pair_logprobs`` makes it. A batch of pairs is laid out once for both models."""
    readers: list[Reader] = [lambda: nullcontext(both.policy), both.reference]
    policy, reference = _logprobs(readers, pairs, batch_tokens, attention)
    return policy - reference


@torch.inference_mode()
def _logprobs(
    readers: Sequence[Reader], pairs: Sequence[PairTokens], batch_tokens: int, attention: Attention
) -> np.ndarray:
    """Summed log-probabilities under each model, float64 of shape [models, pairs, 2]."""
    if not pairs:
        return np.empty((len(readers), 0, 2))
    with ExitStack() as stack:
        packed = True
        for reader in readers:
            with reader() as model:
                packed = packed and not why_separate(model)
                device = model.device
        sums = torch.zeros(len(readers), len(pairs), 2, dtype=torch.float64, device=device)
        for reader in readers if packed else ():
            with reader() as model:
                stack.enter_context(attending_in_pairs(model))
        for rows in cut_by_tokens(pairs, batch_tokens, packed):
            batch = lay_out([pairs[i] for i in rows], device, packed, attention)
            there = torch.tensor(rows, device=device)[batch.pairs]
            for reader, total in zip(readers, sums, strict=True):
                with reader() as model:
                    scores = target_scores(model, batch).double()[:, None] * batch.sides
                    total.index_add_(0, there, scores)
    return sums.cpu().numpy()
