"""Reading what a study measured: the outcomes of a measure over seeds, joined by prompt or pair."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.record import is_number, stored_name
from weakteach.artifacts.store import Store
from weakteach.evaluation.verdicts import contest_consistencies, contest_outcomes
from weakteach.statistics.calibration import error_parts
from weakteach.statistics.cross_fit import group_outcomes
from weakteach.statistics.joined import Column, Joined, Missing, crossed, overlapping
from weakteach.study.measures import Measure

# Kinds measured on the unlabeled part, which each seed draws for itself; two seeds' parts overlap.
OWN_PAIRS = ("agreement", "consistency", "label_gold", "label_gap")
# Facts that a report takes from the record of a measure of each kind; those with ? may be null.
_COMPARED = (
    "agreed", "compared", "labeled", "weak_right?", "gold_with_weak?", "weak_longer",
    "human_longer", "different_lengths",
)  # fmt: skip
NEEDED_FACTS: dict[str, tuple[str, ...]] = {
    "reward": ("mean", "se", "rows"),
    "start_reward": ("mean", "se", "rows"),
    "accuracy": ("agreed", "compared"),
    "gold_accuracy": ("agreed", "compared"),
    "agreement": _COMPARED,
    "teacher_accuracy": _COMPARED,
    "label_gold": ("chosen", "rejected", "rows"),
    "label_gap": ("chosen", "rejected"),
    "verdicts": (
        "wins", "ties", "losses", "flips", "repeats_compared", "longer?", "longer_compared",
    ),
    "consistency": ("consistency?", "contests"),
    "similarity": ("mean", "rows"),
    "transfer": _COMPARED,
    "ece_gain": ("compared", "temperature", "ece_claimed", "ece_scaled"),
    "alike": ("compared", "alike", "kappa?"),
}  # fmt: skip
MOST = 1e15  # no count or reward is as large


@dataclass(frozen=True)
class Outcomes:
    """The artifacts behind measures. What was read is kept, as many figures show the same ones."""

    store: Store
    _columns: dict[str, Column | None] = field(default_factory=dict)
    _facts: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def facts(self, measured: Measure) -> dict[str, Any] | None:
        """The facts that the measure's step put into its record, None while there is no artifact.

        Raises StorageError if a fact that this kind of measure needs is missing or no number."""
        if measured.fingerprint not in self._facts:
            record = self.store.record_of(measured.step, measured.fingerprint)
            self._facts[measured.fingerprint] = record and record["facts"]
        facts = self._facts[measured.fingerprint]
        if facts is not None:
            for name in NEEDED_FACTS.get(measured.kind, ()):
                _require_number(measured, facts, name.rstrip("?"), name.endswith("?"))
        return facts

    def joined(self, measures: Sequence[Measure]) -> Joined:
        """The outcomes of measures of one kind, one for each seed. Those that have no artifact
        yet are left out; see ``statistics/joined.py`` for how seeds are joined."""
        columns = {}
        for measure in measures:
            if (column := self.column(measure)) is not None:
                columns[measure.seed] = column
        if any(len(column.ids) == 0 for column in columns.values()):
            return Missing("a seed has no outcome at all")
        own = bool(measures) and measures[0].kind in OWN_PAIRS
        return overlapping(columns) if own else crossed(columns)

    def column(self, measured: Measure) -> Column | None:
        """The outcome at each prompt or pair: gold rewards, shares of verdicts won, whether a label
        is right, similarities. None while there is no artifact."""
        key = f"{measured.kind} {measured.fingerprint}"
        if key not in self._columns:
            facts = self.facts(measured)
            self._columns[key] = self._read(measured) if facts else None
        return self._columns[key]

    def table(self, measured: Measure, name: str) -> pa.Table:
        """A Parquet file of the measure's artifact."""
        path = f"{self.store.place(measured.step, measured.fingerprint)}/{name}.parquet"
        return pq.read_table(path, filesystem=self.store.filesystem)

    def labeled_pairs(self, measured: Measure) -> pa.Table:
        """The pairs that an agreement was measured on, with their texts, found by its lineage."""
        record = self.store.record_of(measured.step, measured.fingerprint)
        assert record is not None  # the caller has read the artifact's tables
        try:
            labels = record["parameters"]["labels"]
            of_labels = self.store.record_of(labels["step"], labels["fingerprint"])
            assert of_labels is not None  # what an artifact was made of is kept
            part = of_labels["parameters"]["part"]
            folder = self.store.place(part["step"]["step"], part["step"]["fingerprint"])
            path = f"{folder}/{stored_name(part['name'])}.parquet"
        except (LookupError, TypeError) as error:
            raise _damaged(measured, "it does not tell which pairs were labeled") from error
        return pq.read_table(path, filesystem=self.store.filesystem)

    def still_gained(self, measured: Measure) -> bool:
        """Whether the loss on held-out pairs was least after the last update that was tried. The
        measure is the gold reward of a student whose number of updates was found by that loss; the
        training that tried them is found by its lineage."""
        record = self.store.record_of(measured.step, measured.fingerprint)
        try:
            for name in ("responses", "policy", "as_long_as"):
                step = record["parameters"][name]  # type: ignore[index]  # of None: a TypeError
                record = self.store.record_of(step["step"], step["fingerprint"])
            facts = record["facts"]  # type: ignore[index]
            return bool(facts["best_updates"] == facts["updates"])
        except (LookupError, TypeError) as error:
            raise _damaged(measured, "it does not tell how long training was tried") from error

    def _read(self, measured: Measure) -> Column:
        match measured.kind:
            case "reward" | "start_reward":
                return column_of(self.table(measured, "rewards"), "prompt_id", "reward")
            case "similarity":
                return column_of(self.table(measured, "similarity"), "prompt_id", "similarity")
            case "accuracy" | "gold_accuracy" | "teacher_accuracy" | "transfer" | "agreement":
                table = self.table(measured, "compared")
                right = pc.call_function("equal", [table["weak"], table["human"]])
                return by_prompt(table, right.to_numpy())
            case "ece_gain":
                table = self.table(measured, "reliability")
                claimed, scaled = (
                    error_parts(table[name].to_numpy(), table["right"].to_numpy())
                    for name in ("claimed", "scaled")
                )
                return by_prompt(table, claimed - scaled)
            case "alike":
                table = self.table(measured, "alike")
                return by_prompt(table, table["alike"].to_numpy())
            case "label_gold":
                table = self.table(measured, "gold")
                return by_prompt(table, table["chosen"].to_numpy())
            case "label_gap":
                table = self.table(measured, "gold")
                return by_prompt(table, table["chosen"].to_numpy() - table["rejected"].to_numpy())
            case "verdicts":
                # A missing verdict is never a tie.
                decided = contest_outcomes(self.table(measured, "verdicts")).items()
                return _by_id({k: None if one is None else (one + 1) / 2 for k, one in decided})
            case "consistency":
                return _by_id(contest_consistencies(self.table(measured, "verdicts")))
            case _:
                raise ValueError(f"{measured.kind} has no outcome for each prompt")


def _require_number(measured: Measure, facts: dict[str, Any], name: str, nullable: bool) -> None:
    value: Any = facts.get(name, math.inf)
    known = is_number(value) and not abs(value) > MOST
    if not known and not (value is None and nullable):
        raise _damaged(measured, f"{name} is no number")


def _damaged(measured: Measure, why: str) -> StorageError:
    return StorageError(
        f"The record of {measured.step}/{measured.fingerprint} is damaged ({why}): delete that "
        "folder of the storage, and the step is computed again"
    )


def column_of(table: pa.Table, key: str, value: str) -> Column:
    """The column ``value`` of an artifact's table, by the ids in its column ``key``."""
    ids = np.asarray(table[key].to_pylist(), dtype=str)
    order = np.argsort(ids)
    return Column(ids[order], table[value].to_numpy().astype(np.float64)[order])


def by_prompt(table: pa.Table, values: np.ndarray) -> Column:
    """The ``values`` [pairs] of a table of pairs as outcomes of their prompts, since pairs of one
    prompt are not independent. The mean over prompts is that over pairs."""
    prompts = np.asarray(table["prompt_id"].to_pylist(), dtype=str)
    return Column(*group_outcomes(values, prompts))


def _by_id(values: Mapping[str, float | None]) -> Column:
    """The values as a Column; the ids whose value is None become its ``lacking``."""
    known = {key: value for key, value in sorted(values.items()) if value is not None}
    lacking = [key for key, value in values.items() if value is None]
    ids, found = np.array([*known], dtype=str), np.array([*known.values()], dtype=np.float64)
    return Column(ids, found, np.array(lacking, dtype=str))
