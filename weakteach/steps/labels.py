"""Steps that label the pairs of a part: by humans, by a gold reward, or by a teacher."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Workspace
from weakteach.evaluation.gold import Gold, Scoring
from weakteach.models.spec import Dtype
from weakteach.preferences.pair import DataError
from weakteach.steps.data import Labels, Part, resources_of
from weakteach.steps.training import Dpo, RewardHead


@dataclass(frozen=True)
class HumanLabels(Labels):
    """The human choices of the pairs of a part. Raises DataError if there are none."""

    part: Part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        choices = self.part.human_choices(workspace.store)
        if not len(choices):
            raise DataError(f"No pair of the {self.part.name} part has a human choice")
        pq.write_table(choices, workspace.out / "labels.parquet")
        return {"rows": len(choices)}


@dataclass(frozen=True)
class GoldLabels(Labels):
    """Labels by a gold reward: the response with the higher one is chosen, the second on a tie. The
    fact ``cut`` is the number of responses that a reward model could not read to their end."""

    part: Part
    gold: Gold

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.annotators import label_table
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        columns = ("response_1", "response_2")
        work = Scoring(store, self.gold, "pair_id", columns, resources.batch_tokens)
        stream = Stream(store, self.part.file(store), f"{workspace.scratch}/shards", work)

        cut = 0

        def labels_of(scored: pa.Table) -> pa.Table:
            nonlocal cut
            for name in columns:
                if f"{name}_cut" in scored.column_names:
                    cut += int(scored[f"{name}_cut"].to_numpy().sum())
            rewards = np.stack([scored[f"{name}_reward"].to_numpy() for name in columns], axis=1)
            return label_table(scored["pair_id"].to_pylist(), rewards)

        shards = stream_chunks(stream, resources, workspace.progress)
        facts = shards.write(workspace.out / "labels.parquet", labels_of)
        return {**facts, "cut": cut}


@dataclass(frozen=True)
class WeakLabels(Labels):
    """Labels by the teacher's reward: the implicit reward of a DPO policy, or the output of a
    reward head. ``dtype`` is that of the computation."""

    teacher: Dpo | RewardHead
    part: Part
    dtype: Dtype = "float32"

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.labeling.annotators import ImplicitReward, RewardHeadReward
        from weakteach.labeling.shards import Stream
        from weakteach.labeling.stream import stream_chunks

        store, resources = workspace.store, resources_of(workspace)
        how = (self.dtype, resources.batch_tokens)
        annotator: ImplicitReward | RewardHeadReward
        match self.teacher:
            case RewardHead():
                annotator = RewardHeadReward(store, self.teacher, *how)
            case Dpo(start=start, recipe=recipe):
                annotator = ImplicitReward(
                    store, self.teacher, start, recipe.beta, *how, resources.attention
                )
        stream = Stream(store, self.part.file(store), f"{workspace.scratch}/shards", annotator)
        shards = stream_chunks(stream, resources, workspace.progress)
        metadata = {"annotator": self.teacher.fingerprint}
        return shards.write(workspace.out / "labels.parquet", metadata=metadata)
