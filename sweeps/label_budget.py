"""How few human labels are enough, with weak ones beside them?"""

from weakteach.run.command import sweep
from weakteach.study import beyond
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("label_budget", title="Label budget")
def label_budget(grid: Grid) -> list[Experiment]:
    """Compare human labels of all pairs with weighted weak labels over labeled fractions, and with
    human labels of some pairs and weak ones of the others.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [beyond.label_budget(grid), beyond.both(grid)]


if __name__ == "__main__":
    label_budget()
