"""Does it hold for summaries of posts?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("summarization", title="Summarization")
def summarization(grid: Grid) -> list[Experiment]:
    """The student sizes in the second domain.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.summarization(grid)]


if __name__ == "__main__":
    summarization()
