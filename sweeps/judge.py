"""What does a judge say of students and of labels?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("judge", title="Win rate and consistency of a judge")
def judge(grid: Grid) -> list[Experiment]:
    """Let a judge compare students of weak and human labels, in both orders, and repeat its
    verdicts on pairs on which the labels agree and differ. --judge-model names one behind
    --endpoint; without it, verdicts are drawn from a gold reward.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.judged(grid), experiments.consistency(grid)]


if __name__ == "__main__":
    judge()
