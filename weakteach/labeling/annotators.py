"""Annotators: what turns a pair into a label.

An annotator is a frozen dataclass with ``load`` and ``process`` (see ``shards.ChunkWork``) that
reads pairs (``pair_id, prompt, response_1, response_2``) and gives rows of LABEL_SCHEMA.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.labeling.shards import TOKENS
from weakteach.models.resources import Attention
from weakteach.models.spec import Dtype, Model
from weakteach.preferences.pair import messages_in

LABEL_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("choice", pa.int8()),
        ("reward_1", pa.float64()),
        ("reward_2", pa.float64()),
        ("margin", pa.float64()),
        ("confidence", pa.float64()),
    ]
)


def label_table(pair_ids: list[str], rewards: np.ndarray) -> pa.Table:
    """Labels from rewards of shape [pairs, 2].

    The response with the higher reward is chosen, the second on a tie (WLT §3.1). ``margin`` is
    reward_1 - reward_2; ``confidence`` is 2·(σ(|margin|) - ½) in [0, 1] (CW-PO). Raises StepError
    that names the pair whose reward is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(rewards).all(axis=1))
    if len(bad):
        raise StepError(
            f"The rewards of pair {pair_ids[bad[0]]} are {rewards[bad[0]].tolist()} "
            f"({len(bad)} such pairs): the annotator's weights or the pair's text are broken"
        )
    margin = rewards[:, 0] - rewards[:, 1]
    columns = [
        pa.array(pair_ids, pa.string()),
        pa.array(np.where(margin > 0, 1, 2), pa.int8()),
        pa.array(rewards[:, 0]),
        pa.array(rewards[:, 1]),
        pa.array(margin),
        pa.array(np.tanh(np.abs(margin) / 2)),
    ]
    return pa.table(columns, schema=LABEL_SCHEMA)


def _tokens(tokenizer: Any, chunk: pa.Table) -> Any:
    """``PairTokens`` of each pair of the chunk."""
    from weakteach.models.tokens import pair_tokens  # transformers: in workers only

    names = ("prompt", "response_1", "response_2")
    prompts, first, second = (chunk[name].to_pylist() for name in names)
    messages = messages_in(chunk, "response_1", "response_2")
    return pair_tokens(tokenizer, prompts, first, second, messages)


@dataclass(frozen=True)
class ImplicitReward:
    """The implicit reward of a DPO model: β·(log π(y|x) - log π_ref(y|x)) (DPO, eq. 5)."""

    store: Store
    policy: Model | Step
    reference: Model | Step
    beta: float
    dtype: Dtype
    batch_tokens: int
    attention: Attention = "sdpa"

    def load(self) -> Any:
        # torch: in workers only
        from weakteach.models.loading import load_policy_and_reference, weights_of
        from weakteach.models.tokens import load_tokenizer

        policy, reference = (weights_of(self.store, m) for m in (self.policy, self.reference))
        both = load_policy_and_reference(policy, reference, self.dtype)
        return both, load_tokenizer(policy.base)

    def process(self, loaded: Any, chunk: pa.Table) -> pa.Table:
        from weakteach.models.loading import context_length
        from weakteach.models.logprobs import pair_logprobs

        both, tokenizer = loaded
        ids = chunk["pair_id"].to_pylist()
        tokens = _tokens(tokenizer, chunk)
        limit = context_length(both.policy)
        for pair_id, pair in zip(ids, tokens, strict=True):
            if pair.longest > limit:
                raise StepError(
                    f"Pair {pair_id} has {pair.longest} tokens, and the model reads at most {limit}"
                )
        how = self.batch_tokens, self.attention
        trained = pair_logprobs(both.policy, tokens, *how)
        with both.reference() as reference:
            untrained = pair_logprobs(reference, tokens, *how)
        labels = label_table(ids, self.beta * (trained - untrained))
        return labels.replace_schema_metadata({TOKENS: str(sum(pair.total for pair in tokens))})


@dataclass(frozen=True)
class RewardHeadReward:
    """The reward of a sequence-classification model with one output."""

    store: Store
    model: Model | Step
    dtype: Dtype
    batch_tokens: int

    def load(self) -> Any:
        from weakteach.models.loading import load_reward_model, weights_of  # torch: as above
        from weakteach.models.tokens import load_tokenizer

        folder = weights_of(self.store, self.model).base
        return load_reward_model(folder, self.dtype), load_tokenizer(folder)

    def process(self, loaded: Any, chunk: pa.Table) -> pa.Table:
        from weakteach.models.scoring import score_pairs

        model, tokenizer = loaded
        tokens = _tokens(tokenizer, chunk)
        rewards = score_pairs(model, tokenizer, tokens, self.batch_tokens)
        return label_table(chunk["pair_id"].to_pylist(), rewards)
