"""Experiments on teachers alone, which train no student: how well they label held-out pairs."""

from dataclasses import replace

from weakteach.study.arms import Grid
from weakteach.study.experiment import A_SECOND_DOMAIN, experiment
from weakteach.study.measures import Measure
from weakteach.study.roles import TEACHERS


@experiment(
    "C2",
    "Kinds of teachers",
    "Which teacher labels more as humans do: one of DPO, of DPO after SFT, or a reward head?",
    "supervisor",
)
def kinds(grid: Grid) -> list[Measure]:
    points = (replace(grid.point(seed), teacher=kind) for seed in grid.seeds for kind in TEACHERS)
    return [grid.lab(point).teacher_accuracy for point in points]


@experiment(
    "R5",
    "Trust in a teacher",
    "Do teachers know more than chance, and how sure they may be?",
    "supervisor",
)
def trust(grid: Grid) -> list[Measure]:
    labs = (grid.lab(grid.point(seed)) for seed in grid.seeds)
    return [one for lab in labs for one in (lab.teacher_accuracy, lab.reliability)]


@experiment(
    "R6",
    "Stability of labels",
    "Do teachers of another seed, and of other sizes, label the same pairs alike?",
    "supervisor",
)
def stability(grid: Grid) -> list[Measure]:
    found: list[Measure] = []
    for seed in grid.seeds:
        point = grid.point(seed)
        main = grid.lab(point)
        others = [replace(point, weak=weak) for weak in grid.weak if weak != point.weak]
        labs = (grid.lab(one) for one in (replace(point, retrained=True), *others))
        found += [main.teacher_accuracy, *(lab.alike(main) for lab in labs)]
    return found


@experiment(
    "R8",
    "Transfer to another domain",
    "Does a teacher of one domain label the pairs of another?",
    "domain",
    A_SECOND_DOMAIN,
)
def transfer(grid: Grid) -> list[Measure]:
    """From the main domain to the second one, then back."""
    if grid.summaries is None:
        return []
    found: list[Measure] = []
    for seed in grid.seeds:
        domains = (grid.data, grid.summaries)
        first, second = (grid.lab(replace(grid.point(seed), data=data)) for data in domains)
        found += [first.transfer(grid.summaries), second.transfer(grid.data)]
        found += [first.teacher_accuracy, second.teacher_accuracy]
    return found
