"""Does a student of any size learn as much from weak labels as from human ones?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("student_size", title="Student size")
def student_size(grid: Grid) -> list[Experiment]:
    """Align students of several sizes on weak and on human labels, and score them by every gold.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.student_size(grid), experiments.gold_models(grid)]


if __name__ == "__main__":
    student_size()
