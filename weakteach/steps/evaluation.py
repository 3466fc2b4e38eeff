"""Steps that measure labels and policies."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import Store
from weakteach.evaluation.agreement import compare_labels, join_labels, with_prompts
from weakteach.evaluation.gold import Gold, Scoring, prompt_id
from weakteach.models.memory import generation_memory
from weakteach.models.resources import Resources, room_of
from weakteach.models.size import shape_for
from weakteach.models.spec import Dtype, Model
from weakteach.preferences.pair import GROUP_ROWS, DataError, preference_set
from weakteach.steps.data import Labels, Part, Policy, read_labels, resources_of
from weakteach.steps.labels import GoldLabels, WeakLabels
from weakteach.steps.training import base_model

# The smallest batch of generation in tokens, however small the GPU.
FEWEST_TOKENS = 1024
PROMPT_COLUMNS = ["prompt", "prompt_messages", "tools"]


@dataclass(frozen=True)
class Agreement(Step):
    """How often labels of a teacher, or of a gold, agree with human choices and, if ``gold`` is
    given, with gold labels. ``compared.parquet`` has a row per pair, with the labels in the column
    ``weak`` (see ``agreement.join_labels``)."""

    # 3: the prompts of pairs are told. 4: the facts have standard errors of shares.
    VERSION = 4

    labels: WeakLabels | GoldLabels
    gold: GoldLabels | None = None

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store, part = workspace.store, self.labels.part
        human = part.human_choices(store)
        if not len(human):
            raise DataError(f"No pair of the {part.name} part has a human choice")
        weak = read_labels(store, self.labels)
        gold = read_labels(store, self.gold) if self.gold else None
        joined = join_labels(part.read(store), weak, human, gold)
        pq.write_table(joined, workspace.out / "compared.parquet")
        return asdict(compare_labels(len(weak), joined))


def prompts_of(pairs: pa.Table) -> pa.Table:
    """A table ``prompt_id, prompt`` of the different prompts among ``pairs``, and
    ``prompt_messages, tools`` if any of them has messages. If several messages have the same
    transcript, those that come first in sorted order are kept."""
    columns = PROMPT_COLUMNS if pairs["prompt_messages"].null_count < len(pairs) else ["prompt"]
    found: dict[str, dict[str, Any]] = {}
    for row in pairs.select(columns).sort_by([(name, "ascending") for name in columns]).to_pylist():
        found.setdefault(row["prompt"], {"prompt_id": prompt_id(row["prompt"]), **row})
    return pa.Table.from_pylist(
        list(found.values()), pa.schema([(n, pa.string()) for n in ("prompt_id", *columns)])
    )


@dataclass(frozen=True)
class Generate(Step):
    """Sampled responses of a policy to each prompt of a part. The random numbers of a response
    follow from the seed, its prompt and its number among the ``samples`` of that prompt alone, so
    the first response is the same however many samples there are. ``dtype`` is that of the
    computation.

    ``responses.parquet`` has a row for each response. With several samples, ``sample`` holds their
    numbers from 0 on, and the rows of a prompt follow one another.
    """

    VERSION = 2

    policy: Policy
    part: Part
    seed: int
    temperature: float = 0.7
    max_new_tokens: int = 256
    dtype: Dtype = "float32"
    samples: int = 1

    def batch_tokens(self, resources: Resources) -> int:
        """Tokens of a batch of generation, prompts and responses together: those of the resources,
        halved (not below FEWEST_TOKENS) until the weights and the keys and values of a batch fit
        the type of GPU."""
        tokens, room = resources.batch_tokens, room_of(resources)
        model = base_model(self.policy)
        shape = shape_for(model) if model and room is not None else None
        if shape and room is not None:
            while (
                tokens > FEWEST_TOKENS
                and generation_memory(shape, tokens, self.dtype).on_gpu > room
            ):
                tokens //= 2
        return tokens

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.evaluation.responses import Sampling
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        table = prompts_of(self.part.read(store, PROMPT_COLUMNS))
        queue = f"{workspace.scratch}/prompts.parquet"
        pq.write_table(
            table.sort_by("prompt_id"),
            queue,
            filesystem=store.filesystem,
            row_group_size=GROUP_ROWS,
        )
        work = Sampling(
            store,
            self.policy,
            self.seed,
            self.temperature,
            self.max_new_tokens,
            self.dtype,
            self.batch_tokens(resources),
            self.samples,
        )
        stream = Stream(store, queue, f"{workspace.scratch}/shards", work, "prompt_id")
        shards = stream_chunks(stream, resources, workspace.progress)
        return shards.write(workspace.out / "responses.parquet")


@dataclass(frozen=True)
class GoldReward(Step):
    """The gold reward of the responses to each prompt. The facts are the mean over prompts, its
    standard error and, with a reward model, ``cut``: how many of the ``responses`` it could not
    read to their end.

    ``rewards.parquet`` has a row for each prompt, with the means over its samples. If there are
    several samples, ``samples.parquet`` has a row for each of them.
    """

    responses: Generate
    gold: Gold

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        work = Scoring(store, self.gold, "prompt_id", ("response",), resources.batch_tokens)
        file = f"{store.path(self.responses)}/responses.parquet"
        stream = Stream(store, file, f"{workspace.scratch}/shards", work, "prompt_id")

        def renamed(table: pa.Table) -> pa.Table:
            return table.rename_columns([n.removeprefix("response_") for n in table.column_names])

        several = self.responses.samples > 1
        shards = stream_chunks(stream, resources, workspace.progress)
        single = workspace.out / f"{'samples' if several else 'rewards'}.parquet"
        counts = shards.write(single, renamed)
        scored = pq.read_table(single)
        facts: dict[str, Any] = dict(counts)
        if "cut" in scored.column_names:
            facts |= {"cut": int(scored["cut"].to_numpy().sum()), "responses": len(scored)}
        if several:
            scored = _means(scored)
            pq.write_table(scored, workspace.out / "rewards.parquet")
        rewards = scored["reward"].to_numpy()
        if len(rewards) < 2:
            raise DataError("A mean gold reward needs at least 2 test prompts")
        facts |= {
            "rows": len(rewards),
            "mean": float(rewards.mean()),
            "se": float(rewards.std(ddof=1) / np.sqrt(len(rewards))),
        }
        if "garbage" in scored.column_names:
            facts["garbage"] = float(scored["garbage"].to_numpy().mean())
        return facts


def first_responses(store: Store, responses: Step) -> pa.Table:
    """``prompt_id, prompt, response`` of the first sample of each prompt."""
    found = _first(_read(store, responses, "responses"))
    return found.select(["prompt_id", "prompt", "response"])


def first_rewards(store: Store, rewards: GoldReward) -> pa.Table:
    """``prompt_id, reward`` of the first sample of each prompt."""
    several = rewards.responses.samples > 1
    found = _read(store, rewards, "samples" if several else "rewards")
    return _first(found).select(["prompt_id", "reward"])


def _first(rows: pa.Table) -> pa.Table:
    """The first row of each prompt, whose samples follow one another; ``sample`` is dropped."""
    ids = rows["prompt_id"].to_pylist()
    firsts = [n for n, one in enumerate(ids) if n == 0 or ids[n - 1] != one]
    kept = [name for name in rows.column_names if name != "sample"]
    return rows.take(firsts).select(kept)


def _means(samples: pa.Table) -> pa.Table:
    """A row for each prompt, sorted by its id, with the means over its samples; ``cut`` is true if
    any of them was cut."""
    numbers = [name for name in ("reward", "garbage") if name in samples.column_names]
    asked = [(name, "mean") for name in numbers]
    asked += [("cut", "any")] if "cut" in samples.column_names else []
    means = samples.group_by("prompt_id", use_threads=False).aggregate(asked)
    names = [name.removesuffix("_mean").removesuffix("_any") for name in means.column_names]
    return means.rename_columns(names).sort_by("prompt_id")


def _read(store: Store, step: Step, name: str) -> pa.Table:
    return pq.read_table(f"{store.path(step)}/{name}.parquet", filesystem=store.filesystem)


@dataclass(frozen=True)
class LabelGold(Step):
    """The gold rewards of the responses that some labels choose and reject (WLT, Table 2).

    The rewards are read from ``gold``. Pairs that have none there are left out; the fact
    ``missing`` counts them.
    """

    VERSION = 2  # the prompts of pairs are told

    labels: Labels
    gold: GoldLabels

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels = read_labels(workspace.store, self.labels).select(["pair_id", "choice"])
        gold = read_labels(workspace.store, self.gold)
        gold = gold.select(["pair_id", "reward_1", "reward_2"])
        joined = labels.join(gold, "pair_id", join_type="inner")
        if not len(joined):
            raise DataError(f"No pair of {self.labels} has a gold reward in {self.gold}")
        pairs = self.gold.part.read(workspace.store, ["pair_id", "prompt"])
        joined = with_prompts(joined, pairs)
        first = joined["choice"].to_numpy() == 1
        rewards = [joined[name].to_numpy() for name in ("reward_1", "reward_2")]
        chosen, rejected = np.where(first, *rewards), np.where(first, *rewards[::-1])
        table = joined.select(["pair_id", "prompt_id"])
        table = table.append_column("chosen", pa.array(chosen))
        table = table.append_column("rejected", pa.array(rejected))
        pq.write_table(table, workspace.out / "gold.parquet")
        return {
            "rows": len(table),
            "missing": len(labels) - len(table),
            "chosen": float(chosen.mean()),
            "rejected": float(rejected.mean()),
            "gold_sides": int((chosen > rejected).sum()),
        }


@dataclass(frozen=True)
class Similarity(Step):
    """How similar the first generated response is to the one that a human chose for the same
    prompt: the cosine of their vectors under a sentence-embedding model (WLT, Fig. 6). If the
    prompt has several pairs, it is the mean over them. ``dtype`` is that of the computation."""

    responses: Generate
    part: Part
    model: Model
    dtype: Dtype = "float32"

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.evaluation.similarity import SentenceSimilarity
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        pairs = preference_set(self.part.read(store), self.part.human_choices(store))
        ids = pa.array([prompt_id(prompt) for prompt in pairs["prompt"].to_pylist()], pa.string())
        chosen = pa.table({"prompt_id": ids, "chosen": pairs["chosen"]})
        responses = first_responses(store, self.responses).select(["prompt_id", "response"])
        compared = responses.join(chosen, "prompt_id", join_type="inner")
        if not len(compared):
            raise DataError(f"No response is to a prompt of {self.part.name} that a human labeled")
        queue = f"{workspace.scratch}/compared.parquet"
        compared = compared.sort_by([(name, "ascending") for name in compared.column_names])
        pq.write_table(compared, queue, filesystem=store.filesystem, row_group_size=GROUP_ROWS)
        work = SentenceSimilarity(self.model, self.dtype, resources.batch_tokens)
        stream = Stream(store, queue, f"{workspace.scratch}/shards", work, "prompt_id")
        shards = stream_chunks(stream, resources, workspace.progress)
        counts = shards.write(workspace.out / "pairs.parquet")
        scored = pq.read_table(workspace.out / "pairs.parquet")
        means = scored.group_by("prompt_id", use_threads=False).aggregate([("similarity", "mean")])
        means = means.rename_columns(["prompt_id", "similarity"]).sort_by("prompt_id")
        pq.write_table(means, workspace.out / "similarity.parquet")
        similarities = means["similarity"].to_numpy()
        return {
            "rows": len(means),
            "pairs": counts["rows"],
            "quarantined": counts["quarantined"],
            "devices": counts["devices"],
            "mean": float(similarities.mean()),
        }
