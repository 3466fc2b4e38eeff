"""Experiments on teachers alone, which train no student: how well they label held-out pairs."""

from dataclasses import replace

from weakteach.study.arms import Grid
from weakteach.study.experiment import experiment
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
