"""Does a Bradley-Terry reward model label better than DPO?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("reward_head", title="Teacher with a reward head")
def reward_head(grid: Grid) -> list[Experiment]:
    """Let a reward model and a DPO policy of the same size label the same pairs.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.reward_head(grid)]


if __name__ == "__main__":
    reward_head()
