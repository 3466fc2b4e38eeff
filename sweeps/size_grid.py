"""Does a larger teacher give better labels? Weak size x label fraction x seed."""

from weakteach.study.arms import Arm, Grid, size_arm
from weakteach.study.command import sweep


@sweep("size_grid", title="Supervisor size and label fraction")
def size_grid(grid: Grid) -> list[Arm]:
    """Train a teacher of each size on each labeled fraction, align a student on its labels, and
    compare with the student before alignment, after SFT alone, and on human and gold labels.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [size_arm(grid, weak, fraction, seed) for weak, fraction, seed in grid.points()]


if __name__ == "__main__":
    size_grid()
