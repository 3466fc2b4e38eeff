"""Steps that judge labels and policies."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Workspace
from weakteach.evaluation.agreement import compare_labels
from weakteach.evaluation.gold import Gold, Scoring, prompt_id
from weakteach.preferences.pair import GROUP_ROWS, DataError
from weakteach.study.steps.data import Part, Policy, read_labels, resources_of
from weakteach.study.steps.labels import GoldLabels, WeakLabels


@dataclass(frozen=True)
class Agreement(Step):
    """How weak labels agree with human choices and, where known, with gold labels."""

    labels: WeakLabels
    gold: GoldLabels | None = None

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store = workspace.store
        human = self.labels.part.human_choices(store)
        if not len(human):
            raise DataError(f"No pair of the {self.labels.part.name} part has a human choice")
        gold = read_labels(store, self.gold) if self.gold else None
        return asdict(compare_labels(read_labels(store, self.labels), human, gold))


@dataclass(frozen=True)
class Generate(Step):
    """One sampled response to each prompt of a part. The draw of a prompt depends on the seed
    and the prompt alone."""

    policy: Policy
    part: Part
    seed: int
    temperature: float = 0.7
    max_new_tokens: int = 256

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.evaluation.responses import Sampling
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        prompts = sorted(set(self.part.read(store, ["prompt"])["prompt"].to_pylist()))
        table = pa.table({"prompt_id": [prompt_id(p) for p in prompts], "prompt": prompts})
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
            resources.dtype,
            resources.batch_tokens,
        )
        stream = Stream(store, queue, f"{workspace.scratch}/shards", work, "prompt_id")
        shards = stream_chunks(stream, resources, workspace.progress)
        return shards.write(workspace.out / "responses.parquet")


@dataclass(frozen=True)
class GoldReward(Step):
    """The gold reward of each generated response, and their mean with its standard error."""

    responses: Generate
    gold: Gold

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        work = Scoring(
            store, self.gold, "prompt_id", ("response",), resources.dtype, resources.batch_tokens
        )
        file = f"{store.path(self.responses)}/responses.parquet"
        stream = Stream(store, file, f"{workspace.scratch}/shards", work, "prompt_id")

        def renamed(table: pa.Table) -> pa.Table:
            return table.rename_columns([n.removeprefix("response_") for n in table.column_names])

        shards = stream_chunks(stream, resources, workspace.progress)
        counts = shards.write(workspace.out / "rewards.parquet", renamed)
        scored = pq.read_table(workspace.out / "rewards.parquet")
        rewards = scored["reward"].to_numpy()
        if len(rewards) < 2:
            raise DataError("A mean gold reward needs at least 2 test prompts")
        facts: dict[str, Any] = {
            **counts,
            "mean": float(rewards.mean()),
            "se": float(rewards.std(ddof=1) / np.sqrt(len(rewards))),
        }
        if "garbage" in scored.column_names:
            facts["garbage"] = float(scored["garbage"].to_numpy().mean())
        return facts
