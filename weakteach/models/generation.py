"""Sampling responses: the draw of a prompt depends on its seed alone, not on its batch."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from weakteach.models.loading import context_length
from weakteach.models.tokens import length_batches, prompt_tokens


class SeededDraw(LogitsProcessor):
    """Leaves one token per row standing: the one that a uniform number of the row's own stream
    draws from the softmax at ``temperature`` (inverse of the cumulative distribution)."""

    def __init__(self, seeds: Sequence[int], temperature: float, max_new_tokens: int) -> None:
        draws = [np.random.default_rng(seed).random(max_new_tokens) for seed in seeds]
        self._uniforms = torch.tensor(np.stack(draws))
        self._temperature = temperature
        self._step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        cumulative = torch.softmax(scores.double() / self._temperature, dim=-1).cumsum(-1)
        uniform = self._uniforms[:, self._step, None].to(scores.device)
        self._step += 1
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        standing = torch.full_like(scores, -torch.inf)
        return standing.scatter_(-1, drawn.clamp(max=scores.shape[-1] - 1), 0.0)  # type: ignore[return-value]


@torch.inference_mode()
def generate_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seeds: Sequence[int],
    temperature: float,
    max_new_tokens: int,
    batch_tokens: int,
) -> list[str]:
    """One response per prompt, without its EOS; at most ``batch_tokens`` tokens go together."""
    ids = prompt_tokens(tokenizer, prompts)
    responses = [""] * len(ids)
    for rows in length_batches([len(i) + max_new_tokens for i in ids], batch_tokens):
        longest = max(len(ids[i]) for i in rows)
        pad = tokenizer.pad_token_id
        padded = torch.tensor([[pad] * (longest - len(ids[i])) + ids[i] for i in rows])
        attended = torch.tensor([[0] * (longest - len(ids[i])) + [1] * len(ids[i]) for i in rows])
        room = min(max_new_tokens, context_length(model) - longest)
        draw = SeededDraw([seeds[i] for i in rows], temperature, max_new_tokens)
        output = model.generate(  # type: ignore[operator]
            input_ids=padded.to(model.device),
            attention_mask=attended.to(model.device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=room,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
            ),
            logits_processor=LogitsProcessorList([draw]),
        )
        texts = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            responses[row] = text
    return responses
