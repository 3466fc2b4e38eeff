"""Experiments beyond the publication. Some are those of its successor CW-PO (arXiv 2603.04968), in
which a pair counts as much as the teacher is sure of it. The others are in neither: on teachers
alone, on students of human and weak labels together, as a team with some human labels would train
them, and on other uses of what teachers have labeled."""

from dataclasses import replace

from weakteach.study.arms import Grid, Lab
from weakteach.study.experiment import experiment, main_point
from weakteach.study.measures import Measure
from weakteach.study.roles import TOP, WEIGHTINGS
from weakteach.study.teachers import kinds, stability, transfer, trust

# The roles that these experiments compare at their main point.
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
    found = _main(grid, "soft")
    for seed in grid.seeds:
        for changes in LOSSES:
            lab = grid.lab(grid.point(seed).with_dpo(**changes))
            found += _learned(lab, ("human", "weak", "weighted"))
    return found


@experiment(
    "C3",
    "The most confident labels alone",
    "Is it better to weigh all weak labels or to keep those of which the teacher is surest?",
    "labels",
)
def most_confident(grid: Grid) -> list[Measure]:
    return _main(grid, "human", "weak", "weighted", *TOP)


@experiment(
    "C4",
    "Weights as functions of the margin",
    "Which function of the margin weighs best?",
    "labels",
)
def weightings(grid: Grid) -> list[Measure]:
    return _main(grid, "human", "weak", *WEIGHTINGS)


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
            found += lab.outcomes(("base",))
            found += _learned(lab, ("human", "human_all", "weak", "weighted"))
    return found


@experiment(
    "R11",
    "Human and weak labels together",
    "Do weak labels of the other pairs help one who has the human labels of some?",
    "labels",
)
def both(grid: Grid) -> list[Measure]:
    return main_point(grid, (*COMMON, "both", "few_long", "few_stopped"))


@experiment(
    "R12",
    "Other ways from weak to strong",
    "Is there more in the labels of weak teachers: in their margins, or in the agreement of many?",
    "supervisor",
)
def variants(grid: Grid) -> list[Measure]:
    found = main_point(grid, (*COMMON, "target", "ensemble"))
    for seed in grid.seeds:
        for weak in grid.voters:
            found += grid.lab(replace(grid.point(seed), weak=weak)).outcomes(("weak",))
    return found


BEYOND = (
    losses, kinds, most_confident, weightings, label_budget, trust, stability, transfer, both,
    variants,
)  # fmt: skip


def _main(grid: Grid, *learned: str) -> list[Measure]:
    """The main point in the COMMON roles, and what students in the roles ``learned`` have learned
    there (see ``_learned``)."""
    found = main_point(grid, COMMON)
    for seed in grid.seeds:
        found += _learned(grid.lab(grid.point(seed)), learned)
    return found


def _learned(lab: Lab, roles: tuple[str, ...]) -> list[Measure]:
    """The outcomes of these roles, and their gold rewards before DPO, for the gold reward
    accuracy."""
    return [*lab.outcomes(roles), *lab.start_rewards(roles)]
