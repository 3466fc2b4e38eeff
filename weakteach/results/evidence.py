"""Statements, and the evidence that the cells of an experiment give for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weakteach.results.cells import Cell
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.decisions import Claim, Evidence
from weakteach.statistics.joined import Joined, Missing, aligned, average, minus
from weakteach.study.experiment import Experiment

MARGIN = 0.1
# The measures that claims are about, and how each is called.
MEASURED = {
    "reward": "gold reward",
    "verdicts": "verdict of a judge",
    "consistency": "consistency of a judge",
    "label_gold": "gold reward of the labels",
    "label_gap": "gold reward of the labels",
    "teacher_accuracy": "accuracy of a teacher",
    "transfer": "accuracy in another domain",
    "ece_gain": "calibration error",
    "alike": "agreement of teachers",
}
KINDS = tuple(MEASURED)

Where = Callable[[Cell], bool]


def everywhere(cell: Cell) -> bool:
    return True


@dataclass(frozen=True)
class Found:
    """The cells of one experiment, with means over several of them. ``sizes`` holds the number of
    parameters of each model by its name."""

    cells: tuple[Cell, ...]
    sizes: Mapping[str, int]

    def of(self, role: str, where: Where = everywhere, kind: str = "reward") -> list[Cell]:
        return [c for c in self.cells if (c.role, c.kind) == (role, kind) and where(c)]

    def mean(self, role: str, where: Where = everywhere, kind: str = "reward") -> Joined:
        """Mean over the cells of a role; Missing unless every seed of all of them is done."""
        return average([whole(cell) for cell in self.of(role, where, kind)])

    def minus(
        self, one: str, other: str, where: Where = everywhere, kind: str = "reward"
    ) -> Joined:
        return minus(self.mean(one, where, kind), self.mean(other, where, kind))


@dataclass(frozen=True)
class Statement:
    """A claim of an experiment. ``difference`` computes the difference that it is about; ``what``
    says in words what is subtracted from what. ``margin`` computes its margin, as outcomes or a
    number; it is None for a claim without one. ``unit`` is said with the margin where it is not the
    measure's own. ``primary`` marks the claims of the publication's abstract. ``caveat`` returns
    what was found to limit the claim, to be added to its sentence; it may be empty. ``kind`` is
    the measure that the claim is about: where an experiment has none of it, it asks no such
    claim."""

    experiment: str
    claim: Claim
    what: str
    difference: Callable[[Found], Joined]
    margin: Callable[[Found], Joined | float] | None
    unit: str = ""
    primary: bool = False
    caveat: Callable[[Experiment, Outcomes], str] | None = None
    kind: str = "reward"


def whole(cell: Cell) -> Joined:
    """The outcome of a cell, Missing while any of its seeds is pending."""
    if cell.pending:
        return Missing("not all arms are done")
    return cell.outcome


def tenth(gained: Joined) -> Joined:
    return gained if isinstance(gained, Missing) else gained.times(MARGIN)


def gain(found: Found, where: Where = everywhere) -> Joined:
    """The margin: a share of what human labels bring over the base student."""
    return tenth(found.minus("human", "base", where))


def claim_evidence(statement: Statement, found: Found) -> Evidence | Missing:
    """The difference and the margin of a claim, at the same seeds and prompts, or why not."""
    if all(cell.kind != statement.kind for cell in found.cells):
        return Missing(f"no {MEASURED[statement.kind]} was measured")
    difference = statement.difference(found)
    margin = statement.margin(found) if statement.margin else None
    if isinstance(difference, Missing):
        return difference
    if margin is None or isinstance(margin, float):
        return Evidence(statement.claim, difference.matrix, margin, difference.left_out)
    both = aligned([difference, margin])
    if isinstance(both, Missing):
        return both
    return Evidence(statement.claim, both[0].matrix, both[1].matrix, both[0].left_out)
