"""Sampling responses: what is drawn for a prompt depends on the prompt and its seed alone.

Several samples of a prompt share the pass over it, and rows that have ended make room for others,
so that none waits for the longest. Whichever rows are batched together, each has room for
``max_new_tokens`` tokens, or for as many as its own prompt leaves in the model's context.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from weakteach.models.layers import stateful_layers
from weakteach.models.loading import context_length
from weakteach.models.spec import ModelError
from weakteach.models.templates import ChatTemplate
from weakteach.models.tokens import PromptMessages, prompt_tokens

REFILL_SHARE = 4
"""Rows are let in when the free ones are at least this part of all: reading prompts one by one
would cost more than some rows that stand idle."""


@dataclass(frozen=True)
class Sample:
    """One response that is to be drawn: the index of its prompt, its number among the samples of
    that prompt, and the uniform random numbers to draw its tokens with, one per token."""

    prompt: int
    number: int
    uniforms: np.ndarray


@dataclass
class Rows:
    """Responses that are being drawn, one per row. ``attended``, of shape [rows, width], marks the
    places that hold a row's tokens: they stand together at its right end, so that distances between
    places equal those between positions. ``logits`` are those of the next tokens."""

    samples: list[Sample]
    drawn: list[list[int]]
    cache: DynamicCache
    attended: torch.Tensor
    logits: torch.Tensor

    @property
    def positions(self) -> torch.Tensor:
        """Positions of the next tokens, shape [rows, 1]."""
        return self.attended.sum(1, keepdim=True)

    def take(self, rows: list[int]) -> None:
        """Keep these rows alone, without the columns that none of them attends to."""
        self.samples = [self.samples[row] for row in rows]
        self.drawn = [self.drawn[row] for row in rows]
        self.pick(rows)

    def pick(self, rows: list[int]) -> None:
        """Reduce the tensors to these rows, any of which may be named several times, and to the
        columns that they attend to."""
        chosen = torch.tensor(rows, device=self.attended.device)
        self.attended, self.logits = self.attended[chosen], self.logits[chosen]
        width = int(self.positions.max())
        self.attended = self.attended[:, -width:]
        layers: list[Any] = self.cache.layers  # of keys and values
        for layer in layers:
            layer.keys = layer.keys[:, :, -width:].index_select(0, chosen)
            layer.values = layer.values[:, :, -width:].index_select(0, chosen)

    def add(self, other: "Rows") -> None:
        width = max(self.attended.shape[1], other.attended.shape[1])
        layers: list[Any] = self.cache.layers
        others: list[Any] = other.cache.layers
        for layer, more in zip(layers, others, strict=True):
            layer.keys = torch.cat([_widened(t, 2, width) for t in (layer.keys, more.keys)])
            layer.values = torch.cat([_widened(t, 2, width) for t in (layer.values, more.values)])
        self.attended = torch.cat([_widened(t, 1, width) for t in (self.attended, other.attended)])
        self.logits = torch.cat([self.logits, other.logits])
        self.samples += other.samples
        self.drawn += other.drawn


def _widened(tensor: torch.Tensor, dimension: int, width: int) -> torch.Tensor:
    """The tensor with zeros put before it along a dimension, which then has this width."""
    shape = list(tensor.shape)
    shape[dimension] = width - shape[dimension]
    return torch.cat([tensor.new_zeros(shape), tensor], dimension)


def draw_tokens(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
    """One token per row, drawn from the softmax at ``temperature`` by the row's uniform number
    (inverse of the cumulative distribution); logits of shape [rows, vocabulary], uniforms [rows].
    """
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)
    return drawn[:, 0].clamp(max=logits.shape[-1] - 1)


@torch.inference_mode()
def generate_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seeds: Sequence[int],
    temperature: float,
    max_new_tokens: int,
    batch_tokens: int,
    samples: int = 1,
    messages: Sequence[PromptMessages | None] = (),
) -> list[list[str]]:
    """Responses without their end tokens, ``samples`` for each prompt. A batch takes at most
    ``batch_tokens`` tokens, or one response. A prompt's first sample is the same for any number of
    samples.

    A prompt that has ``messages`` is read through the model's chat template, if there is one; its
    responses then end at EOS, at a token that the model's generation config names, or at the one by
    which the template ends a turn, which is what training teaches. Raises Unreadable where the
    template refuses a prompt.

    A prompt that leaves no room in the model's context has empty responses.

    Raises ModelError for a model whose layers keep something else than keys and values: rows could
    not be let in and taken out.
    """
    if others := stateful_layers(model.config):
        raise ModelError(
            f"Models of type {model.config.model_type} have layers ({', '.join(others)}) that keep "
            "no keys and values, and no responses are drawn from them: use another student"
        )
    ids = prompt_tokens(tokenizer, prompts, messages)
    ends = [{tokenizer.eos_token_id}] * len(ids)
    if tokenizer.chat_template and messages:
        turn_ends = _turn_ends(model, tokenizer) | ends[0]
        ends = [ends[0] if one is None else turn_ends for one in messages]
    room = [min(max_new_tokens, context_length(model) - len(prompt)) for prompt in ids]
    responses = [[""] * samples for _ in ids]
    # Long prompts first: a shorter one that follows fits in place of a row that has ended.
    queue = [
        Sample(prompt, number, _uniforms(seeds[prompt], number, max_new_tokens))
        for prompt in sorted(range(len(ids)), key=lambda prompt: -len(ids[prompt]))
        for number in range(samples)
        if room[prompt] > 0
    ]
    rows: Rows | None = None
    while queue or rows:
        free, most = 0, 1
        if queue:
            longest = max(len(ids[s.prompt]) for s in (queue[0], *(rows.samples if rows else ())))
            most = max(1, batch_tokens // (longest + max_new_tokens))
            free = most - (len(rows.samples) if rows else 0)
        if free > 0 and (rows is None or free * REFILL_SHARE >= most):
            added = _read(model, tokenizer.pad_token_id, ids, queue[:free])
            del queue[:free]
            if rows:
                rows.add(added)
            else:
                rows = added
        assert rows is not None
        step = [len(drawn) for drawn in rows.drawn]
        numbers = [s.uniforms[at] for s, at in zip(rows.samples, step, strict=True)]
        uniforms = torch.tensor(numbers, device=rows.logits.device, dtype=torch.double)
        tokens = draw_tokens(rows.logits, uniforms, temperature)
        going = []
        for row, (sample, token) in enumerate(zip(rows.samples, tokens.tolist(), strict=True)):
            rows.drawn[row].append(token)
            ended = token in ends[sample.prompt]
            if ended or len(rows.drawn[row]) == room[sample.prompt]:
                text = tokenizer.decode(rows.drawn[row], skip_special_tokens=True)
                responses[sample.prompt][sample.number] = cast(str, text)
            else:
                going.append(row)
        if not going:
            rows = None
            continue
        if len(going) < len(rows.samples):
            rows.take(going)
            tokens = tokens[going]
        _read_next(model, rows, tokens)
    return responses


def _turn_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a turn by the model's generation config and by its chat template. The
    config of a base model that ships a template names EOS alone."""
    named = getattr(model.generation_config, "eos_token_id", None)
    written = ChatTemplate(tokenizer).turn_end
    ends = {*named, written} if isinstance(named, list) else {named, written}
    return {end for end in ends if end is not None}


def _uniforms(seed: int, number: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, number] if number else seed).random(count)


def _read(
    model: PreTrainedModel, pad: int, ids: Sequence[list[int]], samples: list[Sample]
) -> Rows:
    """Rows for the samples; a prompt that several of them share is read once."""
    prompts = list(dict.fromkeys(sample.prompt for sample in samples))
    width = max(len(ids[prompt]) for prompt in prompts)
    padding = [width - len(ids[prompt]) for prompt in prompts]
    tokens = [[pad] * n + ids[p] for n, p in zip(padding, prompts, strict=True)]
    attended = torch.tensor([[0] * n + [1] * (width - n) for n in padding], device=model.device)
    cache = DynamicCache()
    output = model(
        input_ids=torch.tensor(tokens, device=model.device),
        attention_mask=attended,
        position_ids=(attended.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        **_last_alone(model),
    )
    rows = Rows([], [], cache, attended, output.logits[:, -1].float())
    rows.samples, rows.drawn = samples, [[] for _ in samples]
    rows.pick([prompts.index(sample.prompt) for sample in samples])
    return rows


def _read_next(model: PreTrainedModel, rows: Rows, tokens: torch.Tensor) -> None:
    positions = rows.positions
    rows.attended = torch.cat([rows.attended, torch.ones_like(positions)], dim=1)
    output = model(
        input_ids=tokens[:, None],
        attention_mask=rows.attended,
        position_ids=positions,
        past_key_values=rows.cache,
    )
    rows.logits = output.logits[:, -1].float()


def _last_alone(model: PreTrainedModel) -> dict[str, int]:
    """Arguments that ask for the logits of the last place alone; none if the model takes no such
    argument."""
    known = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if known else {}
