"""Sampling responses to prompts, as work on a stream."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.labeling.shards import ChunkWork
from weakteach.models.spec import Dtype, Model

# By which chat templates end what is thought before an answer. Some, such as Qwen3's, write it
# after no thoughts, too, so that trained models do.
THOUGHT = "</think>"


def _without_thoughts(text: str) -> str:
    return text.rpartition(THOUGHT)[2].strip()


@dataclass(frozen=True)
class Sampling(ChunkWork):
    """Samples responses to prompts. Reads ``prompt_id, prompt`` and, where prompts have messages,
    ``prompt_messages, tools``; adds ``response``. With several ``samples``, each response has a row
    of its own, with its number in ``sample``, and the rows of a prompt follow one another.

    What a model thinks before it answers a prompt with messages is left out: golds, judges and
    similarities read answers."""

    store: Store
    policy: Model | Step
    seed: int
    temperature: float
    max_new_tokens: int
    dtype: Dtype
    batch_tokens: int
    samples: int = 1

    def model_key(self) -> Hashable:
        return replace(self, seed=0, temperature=0.0, max_new_tokens=0, batch_tokens=0, samples=0)

    def load(self) -> Any:
        from weakteach.models.loading import load_policy, weights_of  # torch: workers only
        from weakteach.models.tokens import load_tokenizer

        weights = weights_of(self.store, self.policy)
        return load_policy(weights, self.dtype), load_tokenizer(weights.base)

    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        from weakteach.models.generation import generate_responses

        ids = rows["prompt_id"].to_pylist()
        model, tokenizer = loaded
        messages: list[tuple[str, str | None] | None] = [None] * len(rows)
        if "prompt_messages" in rows.column_names:
            said = zip(rows["prompt_messages"].to_pylist(), rows["tools"].to_pylist(), strict=True)
            messages = [None if prompt is None else (prompt, tools) for prompt, tools in said]
        responses = generate_responses(
            model,
            tokenizer,
            rows["prompt"].to_pylist(),
            [self._prompt_seed(prompt_id) for prompt_id in ids],
            self.temperature,
            self.max_new_tokens,
            self.batch_tokens,
            self.samples,
            messages,
        )
        if tokenizer.chat_template:  # a transcript has a space before the response
            responses = [
                mine if one is None else [f" {_without_thoughts(text)}" for text in mine]
                for mine, one in zip(responses, messages, strict=True)
            ]
        if self.samples > 1:
            places = range(len(rows))
            rows = rows.take([place for place in places for _ in range(self.samples)])
            numbers = [number for _ in places for number in range(self.samples)]
            rows = rows.append_column("sample", pa.array(numbers, pa.int32()))
        texts = [text for mine in responses for text in mine]
        return rows.append_column("response", pa.array(texts, pa.string()))

    def _prompt_seed(self, prompt_id: str) -> int:
        digest = hashlib.sha256(f"{self.seed}:{prompt_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big")
