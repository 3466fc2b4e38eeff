"""Do teacher and student have to be of one family?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("families", title="Model families")
def families(grid: Grid) -> list[Experiment]:
    """Align students of other families, and let teachers of other families label.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.families(grid), experiments.other_teachers(grid)]


if __name__ == "__main__":
    families()
