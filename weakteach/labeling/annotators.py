"""Annotators: what turns a pair into a label.

An annotator is ``shards.ChunkWork`` on pairs (``pair_id, prompt, response_1, response_2``) that
gives rows of LABEL_SCHEMA. Its ``prepare``, which has no model, makes token ids of the texts.
"""

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.labeling.shards import TOKENS, ChunkWork
from weakteach.models.resources import Attention
from weakteach.models.spec import Dtype, Model
from weakteach.preferences.pair import messages_in

if TYPE_CHECKING:  # transformers: workers only
    from weakteach.models.tokens import PairTokens

TEXTS = ("prompt", "response_1", "response_2")
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
    reward_1 - reward_2; ``confidence`` is 2·(σ(|margin|) - ½) in [0, 1] (CW-PO). Raises StepError,
    which names the first such pair, if a reward is not finite.
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


class ReadsTokens(ChunkWork):
    """Work on the token ids of pairs, which the tokenizer of ``reads`` makes."""

    store: Store

    @property
    @abstractmethod
    def reads(self) -> Model | Step:
        """The policy or model whose tokenizer makes the token ids."""

    def load_reader(self) -> Any:
        from weakteach.models.loading import tokenizer_folder  # transformers: in workers only
        from weakteach.models.tokens import load_tokenizer

        return load_tokenizer(tokenizer_folder(self.store, self.reads))

    def prepare(self, reader: Any, rows: pa.Table) -> pa.Table:
        """``pair_id``, and the token ids of the three texts as lists."""
        from weakteach.models.tokens import pair_tokens  # as above

        prompts, first, second = (rows[name].to_pylist() for name in TEXTS)
        messages = messages_in(rows, "response_1", "response_2")
        pairs = pair_tokens(reader, prompts, first, second, messages)
        ids = [
            pa.array([getattr(pair, name) for pair in pairs], pa.list_(pa.int32()))
            for name in TEXTS
        ]
        return pa.table([rows["pair_id"], *ids], names=["pair_id", *TEXTS])


def id_lists(column: pa.ChunkedArray) -> list[list[int]]:
    """The lists of token ids in a column. This is faster than pyarrow's own conversion."""
    lists = column.combine_chunks()
    ids = lists.flatten().to_numpy(zero_copy_only=False).tolist()
    ends = (lists.offsets.to_numpy() - lists.offsets[0].as_py()).tolist()
    return [ids[start:end] for start, end in itertools.pairwise(ends)]


def _pairs_in(prepared: pa.Table) -> "list[PairTokens]":
    from weakteach.models.tokens import PairTokens  # as above

    texts = (id_lists(prepared[name]) for name in TEXTS)
    return [PairTokens(*pair) for pair in zip(*texts, strict=True)]


def _refuse_longer(pair_ids: list[str], pairs: "list[PairTokens]", limit: int) -> None:
    """Raises StepError, which names the pair, if a pair has more tokens than the model reads. Pairs
    are not cut to fit, since a response that is cut is another response."""
    for pair_id, pair in zip(pair_ids, pairs, strict=True):
        if pair.longest > limit:
            raise StepError(
                f"Pair {pair_id} has {pair.longest} tokens, and the model reads at most {limit}"
            )


@dataclass(frozen=True)
class ImplicitReward(ReadsTokens):
    """The implicit reward of a DPO model: β·(log π(y|x) - log π_ref(y|x)) (DPO, eq. 5)."""

    store: Store
    policy: Model | Step
    reference: Model | Step
    beta: float
    dtype: Dtype
    batch_tokens: int
    attention: Attention = "sdpa"

    @property
    def reads(self) -> Model | Step:
        return self.policy

    def load(self) -> Any:
        # torch: in workers only
        from weakteach.models.loading import load_policy_and_reference, weights_of

        policy, reference = (weights_of(self.store, m) for m in (self.policy, self.reference))
        return load_policy_and_reference(policy, reference, self.dtype)

    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        from weakteach.models.loading import context_length
        from weakteach.models.logprobs import log_ratios

        ids = rows["pair_id"].to_pylist()
        tokens = _pairs_in(rows)
        _refuse_longer(ids, tokens, context_length(loaded.policy))
        ratios = log_ratios(loaded, tokens, self.batch_tokens, self.attention)
        labels = label_table(ids, self.beta * ratios)
        return labels.replace_schema_metadata({TOKENS: str(sum(pair.total for pair in tokens))})


@dataclass(frozen=True)
class RewardHeadReward(ReadsTokens):
    """The reward of a sequence-classification model with one output."""

    store: Store
    model: Model | Step
    dtype: Dtype
    batch_tokens: int

    @property
    def reads(self) -> Model | Step:
        return self.model

    def load(self) -> Any:
        from weakteach.models.loading import load_reward_model, weights_of  # torch: as above
        from weakteach.models.tokens import load_tokenizer

        folder = weights_of(self.store, self.model).base
        return load_reward_model(folder, self.dtype), load_tokenizer(folder)

    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        from weakteach.models.loading import context_length
        from weakteach.models.scoring import score_pairs

        model, tokenizer = loaded
        ids, tokens = rows["pair_id"].to_pylist(), _pairs_in(rows)
        _refuse_longer(ids, tokens, context_length(model))
        return label_table(ids, score_pairs(model, tokenizer, tokens, self.batch_tokens))
