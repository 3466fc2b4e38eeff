"""Steps that derive labels from other labels and human choices, without asking a model again."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Workspace
from weakteach.labeling import derived
from weakteach.labeling.weights import Weighting, with_probability, with_weight
from weakteach.preferences.pair import DataError
from weakteach.steps.data import Labels, Part, read_labels
from weakteach.steps.labels import HumanLabels
from weakteach.steps.verdict import Verdict, read_facts


@dataclass(frozen=True)
class View(Labels):
    """Base class of steps that keep rows of ``labels``, some or all, or add a column to them."""

    labels: Labels

    @property
    def part(self) -> Part:
        return self.labels.part


@dataclass(frozen=True)
class Matched(View):
    """The labels that agree with the human choice. Pairs without a human choice are left out."""

    human: HumanLabels

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels, human = (read_labels(workspace.store, s) for s in (self.labels, self.human))
        none = f"no pair on which {_called(self.labels)} and human labels agree"
        return write_view(workspace, derived.matched(labels, human), none)


@dataclass(frozen=True)
class Mismatched(View):
    """The labels that disagree with the human choice. Pairs without a human choice are left out."""

    human: HumanLabels

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels, human = (read_labels(workspace.store, s) for s in (self.labels, self.human))
        none = f"no pair on which {_called(self.labels)} and human labels differ"
        return write_view(workspace, derived.mismatched(labels, human), none)


@dataclass(frozen=True)
class TopMargin(View):
    """The labels with the largest absolute margins. ``share`` says how many, as a share of all."""

    share: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise DataError(f"The share of labels to keep is {self.share}, not above 0 and up to 1")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels = read_labels(workspace.store, self.labels)
        none = f"no pair among the {self.share} with the largest margins"
        return write_view(workspace, derived.top_margin(labels, self.share), none)


@dataclass(frozen=True)
class Weighted(View):
    """The labels with a last column ``weight``, which a weighted loss reads: a function of the
    margin. Raises DataError for labels without margins."""

    weighting: Weighting = "C1"

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels = with_weight(read_labels(workspace.store, self.labels), self.weighting)
        mean = float(labels["weight"].to_numpy().mean())
        return {**write_view(workspace, labels, "no label to weigh"), "mean_weight": mean}


@dataclass(frozen=True)
class Calibrated(View):
    """The labels with a last column ``probability``, which a loss with soft labels reads: how
    likely a human makes the same choice, at the temperature of the teacher's verdict. Raises
    DataError for labels without margins."""

    verdict: Verdict

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        temperature = read_facts(workspace.store, self.verdict).temperature
        labels = with_probability(read_labels(workspace.store, self.labels), temperature)
        return write_view(workspace, labels, "no label to calibrate")


@dataclass(frozen=True)
class Claimed(View):
    """The labels with a last column ``probability``, which a loss with soft labels reads: the one
    that the teacher itself claims, σ(|margin|). Conservative DPO is then the cross-entropy of the
    teacher's and the student's σ(margin). It is smallest where the student's margin equals the
    teacher's, a target that WSPO (Zhu et al. 2024, arXiv 2410.18640) fits by least squares. Raises
    DataError for labels without margins."""

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels = with_probability(read_labels(workspace.store, self.labels), temperature=1.0)
        return write_view(workspace, labels, "no label with a margin")


@dataclass(frozen=True)
class Gated(View):
    """All the labels, if the whole interval of their teacher's accuracy, in its ``verdict``, lies
    above ``threshold``. Raises DataError if it does not."""

    verdict: Verdict
    threshold: float

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        facts = read_facts(workspace.store, self.verdict)
        found = facts.accuracy
        if found.low <= self.threshold:
            raise DataError(
                f"stopped by the gate: {facts.teacher} agrees with {found.value:.1%} of held-out "
                f"human choices (95 % interval {found.low:.1%} to {found.high:.1%}), which is not "
                f"told from {self.threshold:.0%}"
            )
        return write_view(workspace, read_labels(workspace.store, self.labels), "no label")


@dataclass(frozen=True)
class Together(Labels):
    """The human labels of some pairs of ``part`` and the weak labels of others. Raises DataError
    for a pair that has both."""

    human: HumanLabels
    weak: Labels
    part: Part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        human, weak = (read_labels(workspace.store, s) for s in (self.human, self.weak))
        table = derived.together(human, weak)
        none = "no pair with a human or a weak label"
        return {**write_view(workspace, table, none), "human": len(human), "weak": len(weak)}


@dataclass(frozen=True)
class Ensemble(Labels):
    """The choices of several teachers by vote, with their ``confidence`` and an equal ``weight``,
    which a weighted loss reads; see ``derived.voted``. Pairs that one of the teachers could not
    label are left out. Raises DataError for fewer than two teachers, or for labels of different
    parts."""

    members: tuple[Labels, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise DataError("A vote needs the labels of two teachers at least")
        if len({one.part for one in self.members}) > 1:
            raise DataError("Teachers vote on the pairs of one part")

    @property
    def part(self) -> Part:
        return self.members[0].part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        labels = derived.voted([read_labels(workspace.store, one) for one in self.members])
        facts = write_view(workspace, labels, "no pair that all teachers have labeled")
        agreed = int((labels["confidence"].to_numpy() == 1).sum())
        return {**facts, "agreed": agreed}


@dataclass(frozen=True)
class RandomFlips(Labels):
    """The human choices of the pairs that ``like`` labels, too; as many of them are flipped at
    random as ``like`` has errors."""

    human: HumanLabels
    like: Labels
    seed: int

    @property
    def part(self) -> Part:
        return self.human.part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        human, like = (read_labels(workspace.store, s) for s in (self.human, self.like))
        noisy, errors = derived.flipped_like(human, like, self.seed)
        none = "no pair with a human choice and a label whose errors to copy"
        return {**write_view(workspace, noisy, none), "flipped": errors}


def _called(labels: Labels) -> str:
    return "randomly flipped" if isinstance(labels, RandomFlips) else "weak"


def write_view(workspace: Workspace, table: pa.Table, none: str) -> dict[str, Any]:
    """Write the labels and return their number as a fact. Raises DataError, whose message begins
    with ``none``, if there are no labels."""
    if not len(table):
        raise DataError(f"{none}: nothing to train on")
    pq.write_table(table, workspace.out / "labels.parquet")
    return {"rows": len(table)}
