"""Finds out, on two short pairs, whether a loaded model reads packed pairs correctly.

It does if every layer attends by our function and asks nothing of attention that the function does
not know. The probe checks the calls for this, and it compares the answers (log-probabilities, or
the rewards of a scalar head) with those for a separate sequence per response. Neither check alone
would do: a window longer than the pairs changes no number here, and a family that counts places
instead of positions calls our function all the same. Labeling and training ask the same probe.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, PreTrainedModel

from weakteach.models.pair_attention import pair_attention
from weakteach.models.pair_layout import Batch, packed_batch, separate_batch
from weakteach.models.spec import ModelError
from weakteach.models.target_scores import target_scores
from weakteach.models.tokens import PairTokens

LOGGER = logging.getLogger(__name__)
PROBED_ATTENTION = "weakteach_probe"
# Arguments of attention that pair_attention heeds, and those that have no effect on scores.
HEEDED = {"dropout", "scaling", "sliding_window", "pair_layout"}
HARMLESS = {
    "position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states",
    "output_router_logits", "return_dict", "past_key_values", "past_key_value", "is_causal",
    "shift_labels", "fused_lm_head", "layer_idx", "position_embeddings", "logits_to_keep",
}  # fmt: skip
# In float32 the two layouts differ only by the order of sums. In fewer bits, an answer is wrong if
# its error exceeds this share of the error that a row without any mask would have.
EXACT, SHARE_OF_WRONG = 1e-3, 0.25

# Gives a model's answers for the four responses of a batch of two pairs, shape [4].
Answers = Callable[[PreTrainedModel, Batch], torch.Tensor]

_KNOWN: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
_calls: list[dict[str, Any]] = []


def why_separate(model: PreTrainedModel) -> str:
    """Why the model, in eval mode, must read each response in a row of its own; empty if it reads
    packed pairs.

    Found out once for each loaded model. Raises ModelError if the model cannot read responses in
    rows of their own either, or gives wrong answers for them.
    """
    if model not in _KNOWN:
        answers = _sums if model.get_output_embeddings() is not None else _rewards
        with torch.autocast(model.device.type, enabled=False):  # found out once, also for others
            _KNOWN[model] = _probe(model, answers)
        if why := _KNOWN[model]:
            kind = model.config.model_type
            LOGGER.warning(
                "Models of type %s read the prompt once for each response: %s", kind, why
            )
    return _KNOWN[model]


@torch.inference_mode()
def _probe(model: PreTrainedModel, answers: Answers) -> str:
    pairs = _pairs(model)
    right = _plain(model, [(pair.prompt, r) for pair in pairs for r in _responses(pair)])
    if not right.isfinite().all():
        return ""  # broken weights: an error that names the pairs follows when they are read
    exact = model.dtype == torch.float32
    try:
        separate = answers(model, separate_batch(pairs, model.device))
    except Exception as error:  # whatever a family's forward raises for our inputs
        raise ModelError(
            f"Models of type {model.config.model_type} cannot be read ({type(error).__name__}: "
            f"{error}): use a decoder that transformers loads as AutoModelForCausalLM"
        ) from error
    # What the second responses would get if they saw the first ones.
    seen = [(pair.prompt + pair.response_1, pair.response_2) for pair in pairs]
    wrong = (_plain(model, seen) - right[1::2]).abs().min()
    allowed = EXACT if exact else max(EXACT, SHARE_OF_WRONG * float(wrong))
    if not (separate - right).abs().max() <= (EXACT if exact else 1.0):
        raise ModelError(
            f"Models of type {model.config.model_type} make their logits in a way of their own: "
            "weakteach does not know it"
        )
    try:
        with _recording(model) as calls:
            packed = answers(model, packed_batch(pairs, model.device))
    except Exception as error:  # as above
        return f"their attention does not take ours ({type(error).__name__})"
    return _misfit(model, calls) or (
        "" if (packed - right).abs().max() <= allowed else "they count places, not positions"
    )


def _misfit(model: PreTrainedModel, calls: list[dict[str, Any]]) -> str:
    """What the model's layers want of attention that ours does not give; empty if nothing."""
    config = model.config.get_text_config()
    if len(calls) != config.num_hidden_layers:
        return "not every layer of theirs attends"
    given = {name for call in calls for name, value in call.items() if value is not None}
    if unknown := sorted(given - HEEDED - HARMLESS):
        return f"their attention also wants {', '.join(unknown)}"
    kinds = set(getattr(config, "layer_types", None) or ())
    if others := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"they have layers of {', '.join(others)}"
    windowed = kinds == set() or "sliding_attention" in kinds
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    told = {call.get("sliding_window") for call in calls} - {None}
    if windowed and window is not None and not told:
        return "their layers do not tell attention of their window"
    return ""


@contextmanager
def _recording(model: PreTrainedModel) -> Iterator[list[dict[str, Any]]]:
    """A context in which the model attends by ``pair_attention``; gives each call's arguments."""
    before = model.config._attn_implementation
    _calls.clear()
    model.set_attn_implementation(PROBED_ATTENTION)
    try:
        yield _calls
    finally:
        model.set_attn_implementation(before)


def _recorded_attention(*tensors: Any, **arguments: Any) -> tuple[torch.Tensor, None]:
    _calls.append(arguments)
    return pair_attention(*tensors, **arguments)


AttentionInterface.register(PROBED_ATTENTION, _recorded_attention)


def _pairs(model: PreTrainedModel) -> list[PairTokens]:
    """Two pairs; within each, the two responses begin with different tokens."""
    embedding: Any = model.get_input_embeddings()
    vocabulary = embedding.weight.shape[0]
    ids = [
        5 + (37 * place * place + 11 * place) % (min(vocabulary, 500) - 5) for place in range(37)
    ]
    first = PairTokens(ids[:6], ids[6:12], ids[12:17])
    return [first, PairTokens(ids[17:24], ids[24:28], ids[28:37])]


def _responses(pair: PairTokens) -> tuple[list[int], list[int]]:
    return pair.response_1, pair.response_2


def _plain(model: PreTrainedModel, texts: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """The log-probability of each response after its prompt, or its reward, shape [texts], each
    from a forward pass of its own."""
    found = []
    for prompt, response in texts:
        ids = torch.tensor([prompt + response], device=model.device)
        # In float64, as torch's log-softmax loses small terms beside a large one in float32.
        logits = model(input_ids=ids, use_cache=False).logits.double()
        if logits.ndim == 2:  # a scalar head, read at the end
            found.append(logits[0, 0])
            continue
        scores = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        found.append(scores.gather(-1, ids[0, len(prompt) :, None]).sum())
    return torch.stack(found).float()


def _sums(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Log-probabilities added up for each response, in the order of ``_plain``."""
    scores = target_scores(model, batch).double()[:, None] * batch.sides
    sums = torch.zeros(2, 2, dtype=torch.float64, device=scores.device)
    return sums.index_add_(0, batch.pairs, scores).flatten().float()


def _rewards(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The scalar head's rewards at the ends of sequences, in the order of ``_plain``."""
    hidden = model.base_model(**batch.inputs, use_cache=False).last_hidden_state
    head: Any = model.score
    return head(hidden.flatten(0, 1)[batch.ends.T.flatten()])[:, 0].float()
