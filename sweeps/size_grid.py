"""Does a larger teacher give better labels? Weak size x label fraction x seed."""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("size_grid", title="Supervisor size and label fraction", first=True)
def size_grid(grid: Grid) -> list[Experiment]:
    """Train a teacher of each size on each labeled fraction, align a student on its labels, and
    compare with the student before alignment, on human labels, and on those of the labeled pairs
    with and without weak labels of the others. With --controls all also after SFT alone, on gold
    labels, on human labels of all pairs, and on as many random errors.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [experiments.size_grid(grid), experiments.beside_human(grid)]


if __name__ == "__main__":
    size_grid()
