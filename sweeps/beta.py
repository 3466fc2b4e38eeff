"""Does the comparison depend on beta?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("beta", title="Strength of DPO")
def beta(grid: Grid) -> list[Experiment]:
    """Align students at several strengths of DPO.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.beta(grid)]


if __name__ == "__main__":
    beta()
