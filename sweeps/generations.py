"""Do students of weak and human labels answer alike?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("generations", title="Agreement of generations")
def generations(grid: Grid) -> list[Experiment]:
    """Compare responses with the chosen ones by a sentence-embedding model.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.similarity(grid)]


if __name__ == "__main__":
    generations()
