"""Log-probabilities of a batch's target tokens, computed from hidden states in chunks, so that the
logits of all tokens never exist at once."""

import torch
from transformers import PreTrainedModel

from weakteach.models.memory import CPU_LOGITS, DEVICE_LOGITS
from weakteach.models.pair_layout import Batch


def chunk_logits(device: torch.device) -> int:
    """How many logits may exist at a time on a device."""
    return CPU_LOGITS if device.type == "cpu" else DEVICE_LOGITS


def target_scores(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Log-probabilities of the batch's targets, float32, shape [targets]."""
    hidden = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
    hidden = hidden.flatten(0, 1)
    scores = torch.empty(len(batch.targets), device=hidden.device)
    step = max(1, chunk_logits(hidden.device) // model.get_output_embeddings().weight.shape[0])
    for start in range(0, len(scores), step):
        chunk = slice(start, start + step)
        logits = _logits(model, hidden[batch.predictors[chunk]]).float()
        chosen = logits.gather(-1, batch.targets[chunk, None])[:, 0]
        # log_softmax would add the many small terms to the large one singly, which loses them.
        scores[chunk] = chosen - logits.logsumexp(-1)
    return scores


def _logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits as the model's own forward computes them from hidden states [tokens, width]."""
    logits = model.get_output_embeddings()(hidden)
    config = model.config.get_text_config()
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits = (logits / cap).tanh() * cap
    return logits
