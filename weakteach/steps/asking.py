"""The step that chooses which pairs humans should label next."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import Store
from weakteach.labeling.asking import doubt, shortlist, spread_out
from weakteach.preferences.duplicates import UNSEEN
from weakteach.preferences.pair import MESSAGE_COLUMNS, DataError
from weakteach.steps.data import TEXT_COLUMNS, read_labels
from weakteach.steps.labels import WeakLabels
from weakteach.steps.verdict import NewToTeacher, Verdict, read_facts


@dataclass(frozen=True)
class AskHumans(Step):
    """The ``count`` pairs whose human label would help most. ``asked.parquet`` holds them in the
    order in which to ask: ``pair_id, prompt, response_1, response_2, doubt``, and MESSAGE_COLUMNS
    if any of them has messages.

    ``labels`` are those of teachers that differ in their seed, all of one part. The temperature of
    the margins is that of the ``verdict``. ``seen`` says which pairs the teacher of the first
    labels saw in training. Pairs that it saw, or that have a human label already, are not asked
    about: there may be none left.
    """

    labels: tuple[WeakLabels, ...]
    seen: NewToTeacher
    verdict: Verdict
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise DataError(f"{self.count} pairs to ask humans about: give at least 1")
        if not self.labels or self.seen.labels != self.labels[0]:
            raise ValueError("What was seen is of the first labels")
        if len({labels.part for labels in self.labels}) > 1:
            raise ValueError("The labels are of one part")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        store, part = workspace.store, self.labels[0].part
        joined = pq.read_table(f"{store.path(self.seen)}/seen.parquet", filesystem=store.filesystem)
        joined = joined.filter(pa.array([how == UNSEEN for how in joined["seen"].to_pylist()]))
        for number, step in enumerate(self.labels):
            margins = read_labels(store, step).select(["pair_id", "margin"])
            margins = margins.rename_columns(["pair_id", f"margin_{number}"])
            joined = joined.join(margins, "pair_id", join_type="inner")
        joined = joined.join(part.human_choices(store), "pair_id", join_type="left anti")
        listed = self._most_doubtful(store, joined.sort_by("pair_id")) if len(joined) else []
        has_messages = any(row["prompt_messages"] is not None for row in listed)
        names = ["pair_id", *TEXT_COLUMNS, *(MESSAGE_COLUMNS if has_messages else ())]
        schema = pa.schema([*((name, pa.string()) for name in names), ("doubt", pa.float64())])
        asked = pa.Table.from_pylist(listed, schema)
        pq.write_table(asked, workspace.out / "asked.parquet")
        return {"asked": len(asked), "candidates": len(joined)}

    def _most_doubtful(self, store: Store, joined: pa.Table) -> list[dict[str, Any]]:
        """Those of the pairs that humans are asked about, in the order in which to ask."""
        margins = np.stack([joined[f"margin_{n}"].to_numpy() for n in range(len(self.labels))])
        score = doubt(margins, read_facts(store, self.verdict).temperature)
        ids = np.array(joined["pair_id"].to_pylist())
        rows = shortlist(score, ids, self.count)
        wanted = pa.array(ids[rows].tolist())
        part, columns = self.labels[0].part, ["pair_id", *TEXT_COLUMNS, *MESSAGE_COLUMNS]
        said = {
            row["pair_id"]: row
            for row in part.read(store, columns)
            .join(pa.table({"pair_id": wanted}), "pair_id", join_type="inner")
            .to_pylist()
        }
        listed = [{**said[ids[row]], "doubt": float(score[row])} for row in rows]
        places = spread_out([row["prompt"] for row in listed], self.count)
        return [listed[place] for place in places]
