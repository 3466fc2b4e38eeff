"""The cells of an experiment: a cell holds the measures of all seeds at one place of a figure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Protocol

from weakteach.statistics.estimate import Estimate
from weakteach.statistics.joined import Column, Joined, Missing, minus
from weakteach.study.experiment import Experiment
from weakteach.study.measures import Measure, Setting
from weakteach.study.roles import OF_THE_TEACHER, ROLES

TEACHER_FIELDS = ("weak", "teacher")
# How figures name each kind of teacher, after the name of its model.
SAID_OF_TEACHERS = {
    "DPO": "",
    "DPO alone": ", DPO without SFT",
    "reward head": " with a reward head",
}
# Kinds of measures that are not shares, so that their intervals may leave 0 to 1.
REWARDS = ("reward", "similarity", "label_gold", "label_gap", "ece_gain")


class Measured(Protocol):
    """The methods of ``Outcomes`` that cells are made with."""

    def column(self, measured: Measure) -> Column | None: ...

    def joined(self, measures: Sequence[Measure]) -> Joined: ...


@dataclass(frozen=True)
class Cell:
    """What was measured at one place of a figure. ``seeds`` are those that are done, ``pending``
    counts the others, and ``measures`` are those of both. ``outcome`` joins the seeds that are
    done; it is Missing if there are none, or if they have too few prompts in common."""

    series: str
    x: str
    kind: str
    role: str
    of: str
    setting: Setting
    seeds: tuple[int, ...]
    outcome: Joined
    pending: int
    measures: tuple[Measure, ...] = ()

    @property
    def estimate(self) -> Estimate | None:
        """The mean with its interval, which for a share stays within 0 and 1."""
        if isinstance(self.outcome, Missing):
            return None
        return self.outcome.mean() if self.kind in REWARDS else self.outcome.share()

    @property
    def seed_means(self) -> tuple[float, ...]:
        return () if isinstance(self.outcome, Missing) else self.outcome.seed_means


def cells_of(part: Experiment, outcomes: Measured, kinds: Sequence[str]) -> list[Cell]:
    """The cells of an experiment's measures of these kinds, in the order of the measures."""
    measures = [measure for measure in part.measures if measure.kind in kinds]
    varying = _varying(part, measures)
    several = len({measure.of for measure in measures}) > 1
    groups: dict[tuple[str, ...], list[Measure]] = {}
    for measure in measures:
        series, x = _place(part.axis, varying, measure)
        series = f"{series}, by {measure.of}" if several else series
        key = (series, x, measure.kind, measure.role, measure.of)
        groups.setdefault(key, []).append(measure)
    return [_cell(series, x, of, outcomes) for (series, x, *_), of in groups.items()]


def _cell(series: str, x: str, of: list[Measure], outcomes: Measured) -> Cell:
    """The cell of measures that differ only in their seed, or in settings that do not matter for
    their role."""
    by_seed = {measure.seed: measure for measure in of}
    done = [seed for seed in sorted(by_seed) if outcomes.column(by_seed[seed]) is not None]
    outcome, one = outcomes.joined([by_seed[seed] for seed in done]), of[0]
    pending = len(by_seed) - len(done)
    place = (series, x, one.kind, one.role, one.of, one.setting)
    return Cell(*place, tuple(done), outcome, pending, tuple(by_seed.values()))


def human_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell of human labels that has the same measure and, apart from the teacher, the same
    setting; None if there is none."""
    return beside(cell, "human", cells)


def beside(cell: Cell, role: str, cells: Sequence[Cell]) -> Cell | None:
    """The cell of another role that has the same measure and, apart from the teacher, the same
    setting; None if there is none."""
    for other in cells:
        same = (other.kind, other.of) == (cell.kind, cell.of)
        if other.role == role and same and _but_teacher(other) == _but_teacher(cell):
            return other
    return None


def minus_human(cell: Cell, cells: Sequence[Cell]) -> Estimate | Missing | None:
    """The cell's mean minus that of its human cell, paired over the seeds and prompts that both
    have, or why they cannot be compared. None for the human cell itself, for a cell that has no
    human cell, and for a cell without an outcome."""
    human = human_of(cell, cells)
    if human is None or cell.role == "human" or isinstance(cell.outcome, Missing):
        return None
    found = minus(cell.outcome, human.outcome)
    return found if isinstance(found, Missing) else found.mean()


def _but_teacher(cell: Cell) -> dict[str, str]:
    return {k: v for k, v in asdict(cell.setting).items() if k not in TEACHER_FIELDS}


def _varying(part: Experiment, measures: Sequence[Measure]) -> list[str]:
    """Fields of the settings that tell series apart: not on the axis, and of several values."""
    on_axis = {"supervisor": TEACHER_FIELDS}.get(part.axis, (part.axis,))
    return [
        field.name
        for field in fields(Setting)
        if field.name not in on_axis
        and len({getattr(measure.setting, field.name) for measure in measures}) > 1
    ]


def _place(axis: str, varying: Sequence[str], measure: Measure) -> tuple[str, str]:
    """The series of a measure and its place on the x axis."""
    setting, taught = measure.setting, measure.role in OF_THE_TEACHER
    parts = [
        _said(name, getattr(setting, name))
        for name in varying
        if taught or name not in TEACHER_FIELDS
    ]
    role = ROLES[measure.role]
    match axis:
        case "labels":
            x = role
        case "supervisor" if measure.role == "weak":
            kind, comma, more = setting.teacher.partition(", ")
            x = f"{setting.weak}{SAID_OF_TEACHERS[kind]}{comma}{more}"
        case "supervisor":
            x = role
        case _:
            x = getattr(setting, axis)
            parts.insert(0, role)
    return ", ".join(parts) or "students", x


def _said(name: str, value: str) -> str:
    return {
        "weak": f"teacher {value}",
        "student": f"student {value}",
        "fraction": f"{value} labeled",
        "beta": f"beta {value}",
    }.get(name, value)
