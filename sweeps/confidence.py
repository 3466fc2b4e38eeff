"""Does it help to trust each weak label as much as the teacher is sure of it?"""

from weakteach.run.command import sweep
from weakteach.study import beyond
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("confidence", title="Confidence in the loss")
def confidence(grid: Grid) -> list[Experiment]:
    """Weigh the weak labels by the teacher's confidence, under three losses and by four functions
    of the margin, soften them, or keep the most confident ones alone.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [beyond.losses(grid), beyond.most_confident(grid), beyond.weightings(grid)]


if __name__ == "__main__":
    confidence()
