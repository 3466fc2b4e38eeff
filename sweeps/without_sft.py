"""Does DPO need SFT before it?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("without_sft", title="Without SFT")
def without_sft(grid: Grid) -> list[Experiment]:
    """Align students on the same labels with and without SFT.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.without_sft(grid)]


if __name__ == "__main__":
    without_sft()
