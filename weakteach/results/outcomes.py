"""Reading what a study measured: one matrix [seeds, prompts] for the measures of several seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.record import is_number, stored_name
from weakteach.artifacts.store import Store
from weakteach.evaluation.verdicts import contest_outcomes
from weakteach.study.arms import Measure

# Of pairs that every seed draws anew: what varies between seeds holds the variation of pairs.
UNCROSSED = ("consistency", "label_gold", "label_gap")
# Facts that a report takes from the record of a measure of each kind; those with ? may be null.
_COMPARED = (
    "agreed", "compared", "weak_right?", "gold_with_weak?", "weak_longer", "human_longer",
    "different_lengths",
)  # fmt: skip
NEEDED_FACTS: dict[str, tuple[str, ...]] = {
    "reward": ("mean", "se", "rows"),
    "accuracy": ("agreed", "compared"),
    "agreement": _COMPARED,
    "teacher_accuracy": _COMPARED,
    "label_gold": ("chosen", "rejected", "rows"),
    "label_gap": ("chosen", "rejected"),
    "verdicts": (
        "wins", "ties", "losses", "flips", "repeats_compared", "longer?", "longer_compared",
    ),
    "consistency": ("consistency?", "contests"),
    "similarity": ("mean", "rows"),
}  # fmt: skip
MOST = 1e15  # no count or reward is as large


@dataclass(frozen=True)
class Outcomes:
    """The artifacts behind measures. What was read is kept: many figures show the same ones."""

    store: Store
    _columns: dict[str, tuple[np.ndarray, np.ndarray] | None] = field(default_factory=dict)
    _facts: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def facts(self, measured: Measure) -> dict[str, Any] | None:
        """What the step put into its record, None while there is no artifact.

        Raises StorageError if that lacks what the kind of the measure needs."""
        if measured.fingerprint not in self._facts:
            record = self.store.record_of(measured.step, measured.fingerprint)
            self._facts[measured.fingerprint] = record and record["facts"]
        facts = self._facts[measured.fingerprint]
        if facts is not None:
            for name in NEEDED_FACTS.get(measured.kind, ()):
                _require_number(measured, facts, name.rstrip("?"), name.endswith("?"))
        return facts

    def matrix(self, measured: Sequence[Measure]) -> np.ndarray | None:
        """Outcomes [seeds, prompts] of measures of one kind, one for each seed, with the prompts
        (or pairs) that all of them have; None if one is pending or they have fewer than two.

        Where every seed has pairs of its own (UNCROSSED), both columns hold the seed's mean."""
        columns = [self.column(one) for one in sorted(measured, key=lambda one: one.seed)]
        known = [column for column in columns if column is not None]
        if not known or len(known) < len(columns):
            return None
        if measured[0].kind in UNCROSSED:
            return np.repeat([values for _, values in known], 2, axis=1)
        shared = known[0][0]
        for ids, _ in known[1:]:
            shared = np.intersect1d(shared, ids, assume_unique=True)
        if len(shared) < 2:
            return None
        return np.stack([values[np.searchsorted(ids, shared)] for ids, values in known])

    def column(self, measured: Measure) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids, sorted, and the outcome of each: gold rewards, shares of verdicts won, whether a
        label is right, similarities. None while there is no artifact."""
        key = f"{measured.kind} {measured.fingerprint}"
        if key not in self._columns:
            facts = self.facts(measured)
            self._columns[key] = self._read(measured, facts) if facts else None
        return self._columns[key]

    def table(self, measured: Measure, name: str) -> pa.Table:
        """A Parquet file of the measure's artifact."""
        path = f"{self.store.place(measured.step, measured.fingerprint)}/{name}.parquet"
        return pq.read_table(path, filesystem=self.store.filesystem)

    def labeled_pairs(self, measured: Measure) -> pa.Table:
        """The pairs that an agreement is of, with their texts, found by its lineage."""
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

    def _read(
        self, measured: Measure, facts: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if measured.kind in UNCROSSED:
            value = _mean_of(measured.kind, facts)
            return None if value is None else (np.array([""]), np.array([value]))
        match measured.kind:
            case "reward":
                return _column(self.table(measured, "rewards"), "prompt_id", "reward")
            case "similarity":
                return _column(self.table(measured, "similarity"), "prompt_id", "similarity")
            case "accuracy" | "teacher_accuracy" | "agreement":
                table = self.table(measured, "compared")
                right = pc.call_function("equal", [table["weak"], table["human"]])
                return _column(table.append_column("right", right), "pair_id", "right")
            case "verdicts":
                return _won(self.table(measured, "verdicts"))
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


def _mean_of(kind: str, facts: dict[str, Any]) -> float | None:
    match kind:
        case "consistency":
            return facts["consistency"]
        case "label_gold":
            return facts["chosen"]
        case _:
            return facts["chosen"] - facts["rejected"]


def _column(table: pa.Table, key: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    ids = np.asarray(table[key].to_pylist())
    order = np.argsort(ids)
    return ids[order], table[value].to_numpy().astype(np.float64)[order]


def _won(verdicts: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For each prompt 1, 0.5 for a tie, or 0, from the side of the first policy. Prompts without a
    verdict are left out; missing verdicts are never ties."""
    decided = {key: one for key, one in contest_outcomes(verdicts).items() if one is not None}
    ids = sorted(decided)
    return np.asarray(ids), np.array([(decided[key] + 1) / 2 for key in ids])
