"""Every experiment of the publication and beyond it in one study, steps shared."""

from weakteach.run.command import sweep
from weakteach.study.arms import Grid
from weakteach.study.beyond import BEYOND
from weakteach.study.experiment import Experiment
from weakteach.study.experiments import EXPERIMENTS


@sweep("paper", title="Your weak LLM as a teacher: every experiment", decides=True)
def paper(grid: Grid) -> list[Experiment]:
    """Run every experiment of the publication (E1 to E18) and those beyond it (C1 to C5, R5 to
    R12), each step once, and write one report with the claims and what this study says of them. It
    goes in rounds of 2, 4, 8 and 16 seeds, from the second on over what open claims need, until
    each is decided or given up: see --decide. --no-decide, or --seeds, computes a fixed grid.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiment(grid) for experiment in (*EXPERIMENTS, *BEYOND)]


if __name__ == "__main__":
    paper()
