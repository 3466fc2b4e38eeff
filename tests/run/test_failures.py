"""A step that failed for good is tried once in a run, whoever needs it."""

from dataclasses import dataclass, field

from weakteach.artifacts.computing import obtain_each
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.identity import EXECUTION
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.run.failures import SharedFailures, start_keeper


@dataclass(frozen=True)
class Tried(Step):
    """Fails, and leaves a mark of each try."""

    marks: str = field(compare=False, metadata=EXECUTION)
    name: str = "a"
    passing: bool = field(default=False, compare=False, metadata=EXECUTION)

    def compute(self, workspace):
        with open(self.marks, "a") as file:
            file.write("x")
        raise OSError("SlowDown") if self.passing else StepError("it cannot be\ncomputed")


@dataclass(frozen=True)
class Reader(Step):
    read: Tried
    number: int

    def compute(self, workspace):
        return {}


def outcomes(store, step, keeper):
    """What two trials, one after the other, get for readers of the step."""
    found = []
    for number in (1, 2):
        reader = Reader(step, number)
        found.append(obtain_each(store, [reader], failures=SharedFailures(keeper))[reader])
    return found


def test_a_failure_is_shared_by_the_trials_of_a_run_and_by_no_other_run(ray_here, tmp_path):
    store, marks = Store(tmp_path / "store"), tmp_path / "marks"
    keeper = start_keeper()
    errors = outcomes(store, Tried(str(marks)), keeper)
    assert [str(error) for error in errors] == ["it cannot be computed"] * 2
    assert all(isinstance(error, StepError) for error in errors)
    assert marks.read_text() == "x"
    outcomes(store, Tried(str(marks)), start_keeper())
    assert marks.read_text() == "xx"


def test_an_error_of_the_storage_is_not_held_against_the_step(ray_here, tmp_path):
    store, marks = Store(tmp_path / "store"), tmp_path / "marks"
    errors = outcomes(store, Tried(str(marks), passing=True), start_keeper())
    assert [str(error) for error in errors] == ["SlowDown"] * 2
    assert marks.read_text() == "xx"
