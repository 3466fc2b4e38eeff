"""Gold rewards: an embedded domain's own, or a reward model's."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import id_lists
from weakteach.labeling.shards import ChunkWork
from weakteach.models.spec import Dtype, Model, RewardForm
from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import WORLD

if TYPE_CHECKING:  # transformers: workers only
    from weakteach.models.reward_forms import Said


@dataclass(frozen=True)
class WorldGold:
    """The exact gold reward of an embedded domain."""

    domain: Domain = WORLD

    def __str__(self) -> str:
        return f"{self.domain.name}, exact"


@dataclass(frozen=True)
class RewardModel:
    """A sequence-classification model with one output, which computes in ``dtype`` and reads
    prompt and response in the ``form`` that its card asks for (see ``models.reward_forms``)."""

    model: Model | Step
    dtype: Dtype = "float32"
    form: RewardForm = "text"

    def __str__(self) -> str:
        return str(self.model)


Gold = WorldGold | RewardModel


def prompt_id(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Scoring(ChunkWork):
    """Work on a stream: gold rewards of text pairs or of generated responses.

    ``columns`` are the names of the columns that hold responses. The result has ``key`` and, for
    each of them, ``<column>_reward``; with a domain's gold also ``<column>_garbage``, the share of
    unreadable words, and with a reward model ``<column>_cut``, whether the response was too long to
    be read to its end.
    """

    store: Store
    gold: Gold
    key: str
    columns: tuple[str, ...]
    batch_tokens: int

    def model_key(self) -> Hashable:
        return replace(self, key="", columns=(), batch_tokens=0)

    def load_reader(self) -> Any:
        if isinstance(self.gold, WorldGold):
            return None
        # transformers: in workers only, as torch below
        from weakteach.models.loading import context_in, tokenizer_folder
        from weakteach.models.reward_forms import load_reward_tokenizer

        folder = tokenizer_folder(self.store, self.gold.model)
        return load_reward_tokenizer(self.gold.form, folder, str(self.gold)), context_in(folder)

    def prepare(self, reader: Any, rows: pa.Table) -> pa.Table:
        """For a reward model: the key and, for each column, what the model reads of its responses
        (``<column>.<name>``) and whether they had to be cut. For a domain's gold: the rows
        unchanged."""
        if isinstance(self.gold, WorldGold):
            return rows
        from weakteach.models.reward_forms import encode

        tokenizer, context = reader
        prompts, form = rows["prompt"].to_pylist(), self.gold.form
        result = {self.key: rows[self.key]}
        for column in self.columns:
            responses, said = rows[column].to_pylist(), _said(rows, column)
            encoded, cut = encode(form, tokenizer, prompts, responses, context, said)
            for name in encoded[0]:
                ids = [item[name] for item in encoded]
                result[f"{column}.{name}"] = pa.array(ids, pa.list_(pa.int32()))
            result[f"{column}_cut"] = pa.array(cut, pa.bool_())
        return pa.table(result)

    def load(self) -> Any:
        if isinstance(self.gold, WorldGold):
            return None
        from weakteach.models.loading import load_reward_model, weights_of  # torch: workers only
        from weakteach.models.reward_forms import load_reward_tokenizer

        folder = weights_of(self.store, self.gold.model).base
        tokenizer = load_reward_tokenizer(self.gold.form, folder, str(self.gold))
        return load_reward_model(folder, self.gold.dtype), tokenizer

    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        keys = rows[self.key].to_pylist()
        result = {self.key: pa.array(keys, pa.string())}
        for column in self.columns:
            scores = self._scores(loaded, rows, column)
            bad = np.flatnonzero(~np.isfinite(scores["reward"]))
            if len(bad):
                raise StepError(
                    f"The gold reward of {self.key} {keys[bad[0]]} is {scores['reward'][bad[0]]}: "
                    "the reward model is broken, or overflows in its dtype"
                )
            result |= {f"{column}_{name}": pa.array(values) for name, values in scores.items()}
        return pa.table(result)

    def _scores(self, loaded: Any, rows: pa.Table, column: str) -> dict[str, np.ndarray]:
        if isinstance(self.gold, WorldGold):
            texts = zip(rows["prompt"].to_pylist(), rows[column].to_pylist(), strict=True)
            try:
                golds = [self.gold.domain.gold(*both) for both in texts]
            except ValueError as error:
                raise StepError(
                    f"The gold of {self.gold.domain.name} knows its own prompts alone: {error}"
                ) from error
            return {
                "reward": np.array([gold.reward for gold in golds]),
                "garbage": np.array([gold.garbage for gold in golds]),
            }
        from weakteach.models.scoring import score_in_form  # torch: workers only

        names = [name for name in rows.column_names if name.startswith(f"{column}.")]
        read = [id_lists(rows[name]) for name in names]
        kinds = [name.removeprefix(f"{column}.") for name in names]
        encoded = [dict(zip(kinds, ids, strict=True)) for ids in zip(*read, strict=True)]
        model, tokenizer = loaded
        rewards = score_in_form(self.gold.form, model, tokenizer, encoded, self.batch_tokens)
        return {"reward": rewards, "cut": rows[f"{column}_cut"].to_numpy()}


def _said(rows: pa.Table, column: str) -> "list[Said]":
    """For each row the messages of its prompt and of the response in this column, and its tools;
    None for a row without messages."""
    if "prompt_messages" not in rows.column_names:
        return [None] * len(rows)
    names = ("prompt_messages", f"{column}_messages", "tools")
    said = zip(
        *(
            rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
            for name in names
        ),
        strict=True,
    )
    return [None if one[0] is None else one for one in said]
