"""A study made by hand: artifacts with known numbers in a real store, and measures of them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.record import seal
from weakteach.artifacts.store import Store
from weakteach.evaluation.judge import VERDICT_SCHEMA
from weakteach.results.outcomes import Outcomes
from weakteach.study.experiment import Experiment
from weakteach.study.measures import Measure, Setting

MAIN = Setting(
    domain="world", weak="opt-45k", teacher="DPO", student="opt-230k", fraction="1/2", beta="0.4",
    sft="with SFT",
)  # fmt: skip
GOLD = "world, exact"
# Outcomes by prompt or pair id.
Values = Mapping[str, float]


class Bed:
    """Writes artifacts and gives their measures."""

    def __init__(self, folder: Any) -> None:
        self.store, self._count = Store(folder), 0

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes(self.store)

    def put(
        self, step: str, facts: dict[str, Any], tables: dict[str, pa.Table],
        fingerprint: str = "", **record: Any,
    ) -> str:  # fmt: skip
        """An artifact, by its fingerprint."""
        self._count += 1
        fingerprint = fingerprint or f"{self._count:020x}"
        folder = self.store.place(step, fingerprint)
        self.store.filesystem.create_dir(folder, recursive=True)
        for name, table in tables.items():
            pq.write_table(table, f"{folder}/{name}.parquet")
        whole = {
            "step": step, "fingerprint": fingerprint, "facts": facts, "parameters": {},
            "inputs": [], "started": 1.0, "seconds": 2.0, "device_seconds": 3.0, **record,
        }  # fmt: skip
        with open(f"{folder}/record.json", "w") as file:
            json.dump(seal(whole), file)
        return fingerprint

    def pending(self, kind: str, role: str, seed: int, of: str = GOLD, **setting: str) -> Measure:
        """A measure whose step has no artifact yet."""
        self._count += 1
        where = replace(MAIN, **setting)
        return Measure(where, seed, kind, role, of, "Missing", f"{self._count:020x}")

    def measure(self, kind: str, role: str, seed: int, step: str, fingerprint: str,
                of: str = "", **setting: str) -> Measure:  # fmt: skip
        return Measure(replace(MAIN, **setting), seed, kind, role, of, step, fingerprint)

    def reward(
        self, role: str, seed: int, values: Values, of: str = GOLD, fingerprint: str = "",
        parameters: Mapping[str, Any] | None = None, **setting: str,
    ) -> Measure:  # fmt: skip
        table = pa.table({"prompt_id": list(values), "reward": [float(v) for v in values.values()]})
        mean = sum(values.values()) / len(values)
        facts = {"rows": len(values), "mean": mean, "se": 0.1}
        made = self.put(
            "GoldReward", facts, {"rewards": table}, fingerprint, parameters=dict(parameters or {})
        )
        return self.measure("reward", role, seed, "GoldReward", made, of, **setting)

    def similarity(self, role: str, seed: int, values: Values) -> Measure:
        table = pa.table({"prompt_id": list(values), "similarity": list(values.values())})
        made = self.put("Similarity", {"rows": len(values), "mean": 0.5}, {"similarity": table})
        return self.measure("similarity", role, seed, "Similarity", made, "minilm")

    def label_gold(
        self, role: str, seed: int, golds: Mapping[str, tuple[float, float]]
    ) -> list[Measure]:
        """Gold rewards of the chosen and the rejected response of each pair."""
        chosen, rejected = (list(map(float, side)) for side in zip(*golds.values(), strict=True))
        table = pa.table(
            {"pair_id": list(golds), "prompt_id": list(golds), "chosen": chosen,
             "rejected": rejected}
        )  # fmt: skip
        means = {"chosen": sum(chosen) / len(golds), "rejected": sum(rejected) / len(golds)}
        made = self.put("LabelGold", {"rows": len(golds), **means}, {"gold": table})
        kinds = ("label_gold", "label_gap")
        return [self.measure(kind, role, seed, "LabelGold", made, GOLD) for kind in kinds]

    def compared(
        self, kind: str, seed: int, rows: Mapping[str, tuple[int, int, int]],
        confidence: float = 0.2, fingerprint: str = "", labeled: int | None = None, **setting: str,
    ) -> Measure:  # fmt: skip
        """An agreement: for each pair the weak, the human and the gold choice. ``labeled`` is the
        number of pairs that have a weak label, by default that of the rows."""
        weak, human, gold = (list(side) for side in zip(*rows.values(), strict=True))
        table = pa.table(
            {
                "pair_id": list(rows), "prompt_id": list(rows),
                "weak": weak, "human": human, "gold": gold,
                "margin": [0.5] * len(rows), "confidence": [confidence] * len(rows),
                "longer": [1] * len(rows), "gold_difference": [1.0] * len(rows),
            }
        )  # fmt: skip
        both = list(zip(weak, human, gold, strict=True))
        facts = {
            "labeled": len(rows) if labeled is None else labeled, "compared": len(rows),
            "agreed": sum(w == h for w, h, _ in both),
            "weak_right": sum(w == g for w, _, g in both),
            "gold_with_weak": sum(w == g != h for w, h, g in both),
            "weak_longer": sum(w == 1 for w in weak), "human_longer": sum(h == 1 for h in human),
            "different_lengths": len(rows),
        }  # fmt: skip
        made = self.put("Agreement", facts, {"compared": table}, fingerprint)
        return self.measure(kind, "weak", seed, "Agreement", made, **setting)

    def verdicts(
        self, kind: str, role: str, seed: int, answers: Mapping[str, list[tuple[int, int]]],
        of: str = "judge", **setting: str,
    ) -> Measure:  # fmt: skip
        """For each contest the verdicts of each repeat, in both orders."""
        rows = [
            {"id": key, "repeat": n, "order": order, "verdict": pair[order - 1], "score_1": 1.0}
            for key, repeats in answers.items()
            for n, pair in enumerate(repeats)
            for order in (1, 2)
        ]
        table = pa.Table.from_pylist(rows, VERDICT_SCHEMA)
        facts = {
            "wins": 1, "ties": 0, "losses": 0, "flips": 0, "repeats_compared": 1, "longer": 0.5,
            "longer_compared": 2, "consistency": 0.9, "contests": len(answers),
        }  # fmt: skip
        step = "Verdicts" if kind == "verdicts" else "PairVerdicts"
        made = self.put(step, facts, {"verdicts": table})
        return self.measure(kind, role, seed, step, made, of, **setting)


def experiment(id: str, axis: str, *measures: Measure) -> Experiment:
    return Experiment(id, f"Title of {id}", "A question?", axis, measures)
