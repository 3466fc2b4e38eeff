"""Which errors of labels hurt?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("label_noise", title="Purification and random noise")
def label_noise(grid: Grid) -> list[Experiment]:
    """Align students on the weak labels that humans agree with, on the others, and on human
    labels with as many random errors.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [
        experiments.purification(grid),
        experiments.random_noise(grid),
        experiments.label_quality(grid),
        experiments.mismatches(grid),
    ]


if __name__ == "__main__":
    label_noise()
