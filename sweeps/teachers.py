"""Which teachers label as humans do?"""

from weakteach.run.command import sweep
from weakteach.study import teachers
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("teachers", title="Teachers")
def teachers_alone(grid: Grid) -> list[Experiment]:
    """Compare teachers by their labels of held-out pairs: kinds of them, how far they can be
    trusted, of other seeds and sizes, in another domain. No student is trained.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [
        teachers.kinds(grid),
        teachers.trust(grid),
        teachers.stability(grid),
        teachers.transfer(grid),
    ]


if __name__ == "__main__":
    teachers_alone()
