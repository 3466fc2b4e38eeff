"""How few human labels does a teacher need?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("label_fraction", title="Label fraction")
def label_fraction(grid: Grid) -> list[Experiment]:
    """Train teachers on less and less of the pairs, for equally many updates, and align students on
    their labels.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.label_fraction(grid)]


if __name__ == "__main__":
    label_fraction()
