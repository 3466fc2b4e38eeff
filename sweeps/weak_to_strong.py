"""Is there more in weak labels than their choices?"""

from weakteach.run.command import sweep
from weakteach.study import beyond
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("weak_to_strong", title="Other ways from weak to strong")
def weak_to_strong(grid: Grid) -> list[Experiment]:
    """Make the teacher's margin the student's target, and let all teachers vote, weighted by how
    far they agree.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [beyond.variants(grid)]


if __name__ == "__main__":
    weak_to_strong()
