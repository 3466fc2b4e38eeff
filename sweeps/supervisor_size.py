"""How much does it matter who labels the pairs?"""

from weakteach.run.command import sweep
from weakteach.study import experiments
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment


@sweep("supervisor_size", title="Supervisor size")
def supervisor_size(grid: Grid) -> list[Experiment]:
    """Align a student on labels of teachers of several sizes, of humans, of gold and, with
    --endpoint and --annotator-model, of a prompted model.

    Submit the same command again to go on after an interruption: what is computed is kept.
    """
    return [
        experiments.supervisor_size(grid),
        experiments.label_quality(grid),
        experiments.mismatches(grid),
    ]


if __name__ == "__main__":
    supervisor_size()
