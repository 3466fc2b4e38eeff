"""Steps that measure what teachers' labels of pairs are worth, apart from their accuracy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step, Workspace
from weakteach.evaluation.agreement import with_prompts
from weakteach.labeling.derived import compared
from weakteach.preferences.pair import DataError
from weakteach.steps.data import read_labels
from weakteach.steps.labels import WeakLabels
from weakteach.steps.verdict import Verdict, read_facts


@dataclass(frozen=True)
class Reliability(Step):
    """How far the probabilities of labels can be trusted, measured on pairs that humans labeled,
    too: the probabilities that the teacher claims, and those scaled by the temperature of its
    verdict, which was fitted on other pairs. ``reliability.parquet`` holds ``pair_id, right`` (0 or
    1), the probabilities ``claimed`` and ``scaled`` that the label is right, and ``prompt_id``."""

    VERSION = 2  # the prompts of pairs are told

    labels: WeakLabels
    verdict: Verdict

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.statistics.calibration import calibration, label_probability  # scipy

        store = workspace.store
        human = self.labels.part.human_choices(store)
        labels, choices = compared(read_labels(store, self.labels), human)
        if not len(labels):
            raise DataError(f"No pair of the {self.labels.part.name} part has a human choice")
        temperature = read_facts(store, self.verdict).temperature
        right = (labels["choice"].to_numpy() == choices.to_numpy()).astype(float)
        claimed, scaled = (
            label_probability(labels["margin"].to_numpy(), one) for one in (1.0, temperature)
        )
        table = {"pair_id": labels["pair_id"], "right": right, "claimed": claimed, "scaled": scaled}
        pairs = self.labels.part.read(store, ["pair_id", "prompt"])
        pq.write_table(with_prompts(pa.table(table), pairs), workspace.out / "reliability.parquet")
        before, after = (calibration(one, right) for one in (claimed, scaled))
        return {
            "compared": len(labels),
            "temperature": temperature,
            "ece_claimed": before.ece,
            "ece_scaled": after.ece,
            "brier_claimed": before.brier,
            "brier_scaled": after.brier,
        }


@dataclass(frozen=True)
class Alike(Step):
    """Which pairs two teachers label alike: ``pair_id, alike`` (0 or 1) and ``prompt_id`` in
    ``alike.parquet``. The facts have their number, Cohen's ``kappa``, and the standard errors of
    their share and of κ, ``alike_se`` and ``kappa_se``, which allow for pairs of one prompt. κ and
    its error are None if both teachers always choose one and the same response. Raises DataError if
    no pair has both labels."""

    # 2: the prompts of pairs are told. 3: standard errors allow for them.
    VERSION = 3

    one: WeakLabels
    other: WeakLabels

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.statistics.cross_fit import kappa_and_error, share_error  # scipy

        store = workspace.store
        labels = (read_labels(store, one) for one in (self.one, self.other))
        table, others = compared(*labels)
        if not len(table):
            raise DataError(f"{self.one} and {self.other} have labeled no pair in common")
        first, second = table["choice"].to_numpy(), others.to_numpy()
        alike = first == second
        columns = {"pair_id": table["pair_id"], "alike": alike.astype(float)}
        pairs = self.one.part.read(store, ["pair_id", "prompt"])
        written = with_prompts(pa.table(columns), pairs)  # whose rows are those of ``table``
        pq.write_table(written, workspace.out / "alike.parquet")
        prompts = np.asarray(written["prompt_id"])
        kappa, error = kappa_and_error(first, second, prompts)
        known = np.isfinite(kappa)
        return {
            "compared": len(table),
            "alike": int(alike.sum()),
            "alike_se": share_error(alike, prompts),
            "kappa": kappa if known else None,
            "kappa_se": error if known else None,
        }
