"""Experiments beyond the publication: those of its successor CW-PO (arXiv 2603.04968), in which a
pair counts as much as the teacher is sure of it, and one that neither has, in which a student
learns from human and weak labels together, as a team would."""

from dataclasses import replace

from weakteach.study.arms import Grid
from weakteach.study.experiment import experiment, main_point
from weakteach.study.measures import Measure
from weakteach.study.roles import WEIGHTINGS
from weakteach.study.teachers import kinds, stability, transfer, trust

# What all of these compare at their main point.
COMMON = ("base", "human", "human_all", "human_few", "weak")
# Changes of the students' DPO recipe: DPO itself, IPO, and robust DPO with CW-PO's ε.
LOSSES: tuple[dict[str, str | float], ...] = ({}, {"loss": "ipo"}, {"loss": "rdpo", "noise": 0.1})


@experiment(
    "C1",
    "Confidence in the loss",
    "Do weak labels teach better when each counts as much as the teacher is sure of it, under "
    "several losses?",
    "recipe",
)
def losses(grid: Grid) -> list[Measure]:
    found = _main(grid, ("weighted", "soft"))
    for seed in grid.seeds:
        for changes in LOSSES:
            lab = grid.lab(grid.point(seed).with_dpo(**changes))
            found += lab.outcomes(("human", "weak", "weighted"))
    return found


@experiment(
    "C3",
    "The most confident labels alone",
    "Is it better to weigh all weak labels or to keep those of which the teacher is surest?",
    "labels",
)
def most_confident(grid: Grid) -> list[Measure]:
    return _main(grid, ("weighted", "top_30", "top_40", "confident"))


@experiment(
    "C4",
    "Weights as functions of the margin",
    "Which function of the margin weighs best?",
    "labels",
)
def weightings(grid: Grid) -> list[Measure]:
    return _main(grid, tuple(WEIGHTINGS))


@experiment(
    "C5",
    "Label budget",
    "How few human labels, with weighted weak ones, teach as well as human labels of all pairs?",
    "fraction",
)
def label_budget(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    for seed in grid.seeds:
        for fraction in grid.fractions:
            lab = grid.lab(replace(grid.point(seed), fraction=fraction))
            found += lab.outcomes(("base", "human", "human_all", "weak", "weighted"))
    return found


@experiment(
    "R11",
    "Human and weak labels together",
    "Do weak labels of the other pairs help one who has the human labels of some?",
    "labels",
)
def both(grid: Grid) -> list[Measure]:
    return _main(grid, ("both", "few_long"))


BEYOND = (
    losses, kinds, most_confident, weightings, label_budget, trust, stability, transfer, both,
)  # fmt: skip


def _main(grid: Grid, roles: tuple[str, ...]) -> list[Measure]:
    """The main point in the roles that all of these compare and in further ones."""
    return main_point(grid, (*COMMON, *roles))
