"""How much do the split and all that follows change the outcome?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("seeds", title="Seeds of the split")
def seeds(grid: Grid) -> list[Experiment]:
    """The same arms over more seeds.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.split_seeds(grid)]


if __name__ == "__main__":
    seeds()
