"""Log-probabilities of the responses of pairs under a causal language model."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from weakteach.models.tokens import PairTokens, length_batches


@torch.inference_mode()
def pair_logprobs(
    model: PreTrainedModel, pairs: Sequence[PairTokens], batch_tokens: int
) -> np.ndarray:
    """Summed log p(response | prompt), float64 of shape [pairs, 2].

    Sequences of similar length go together, in batches of at most ``batch_tokens`` tokens with
    padding (one longer sequence is a batch of its own). Sums run in float32 or better.
    """
    sequences = [
        (pair.prompt, response) for pair in pairs for response in (pair.response_1, pair.response_2)
    ]
    sums = np.zeros(len(sequences))
    for batch in length_batches([len(p) + len(r) for p, r in sequences], batch_tokens):
        sums[batch] = _response_sums(model, [sequences[i] for i in batch])
    return sums.reshape(len(pairs), 2)


def _response_sums(
    model: PreTrainedModel, sequences: list[tuple[list[int], list[int]]]
) -> np.ndarray:
    longest = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    attended = torch.zeros_like(ids)
    scored = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for row, (prompt, response) in enumerate(sequences):
        length = len(prompt) + len(response)
        ids[row, :length] = torch.tensor(prompt + response)
        attended[row, :length] = 1
        scored[row, len(prompt) : length] = True
    ids, attended, scored = (t.to(model.device) for t in (ids, attended, scored))
    # The head runs on no position before the first that predicts a response token.
    kept = longest - min(len(prompt) for prompt, _ in sequences) + 1
    logits = model(input_ids=ids, attention_mask=attended, logits_to_keep=kept, use_cache=False)
    predicting, targets, mask = logits.logits[:, :-1], ids[:, -kept + 1 :], scored[:, -kept + 1 :]
    chosen = predicting[mask].float()
    tokens = chosen.gather(-1, targets[mask][:, None])[:, 0] - chosen.logsumexp(-1)
    rows = mask.nonzero()[:, 0]
    sums = torch.zeros(len(sequences), dtype=torch.float64, device=model.device)
    return sums.index_add_(0, rows, tokens.double()).cpu().numpy()
