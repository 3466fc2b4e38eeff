"""The shape of an experiment: a question, and a function from a grid to the measures that answer
it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from weakteach.preferences.pair import DataError
from weakteach.study.arms import Grid
from weakteach.study.measures import Arm, Measure, Setting

# What some experiments need of data, and how to give it.
A_GOLD = "a gold: give --gold MODEL, or --judge-model with --endpoint"
A_SECOND_DOMAIN = (
    "a second domain, which no data of your own have: leave --data out, with --preset embedded or "
    "--preset paper"
)


@dataclass(frozen=True)
class Experiment:
    """A question, and the measures that answer it, each once. ``axis`` is the field of Setting
    (or ``labels``, the role; or ``supervisor``, who labels) on the x axis of its figures. ``needs``
    says what data must have for there to be any measures, and how to give it; empty if any data
    will do."""

    id: str
    title: str
    question: str
    axis: str
    measures: tuple[Measure, ...]
    needs: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "measures", tuple(dict.fromkeys(self.measures)))


def experiment(
    id: str, title: str, question: str, axis: str, needs: str = ""
) -> Callable[[Callable[[Grid], Iterable[Measure]]], Callable[[Grid], Experiment]]:
    """Decorator that turns a function from a grid to measures into a function from a grid to the
    Experiment with these measures."""

    def made(measures_of: Callable[[Grid], Iterable[Measure]]) -> Callable[[Grid], Experiment]:
        def of(grid: Grid) -> Experiment:
            return Experiment(id, title, question, axis, tuple(measures_of(grid)), needs)

        return of

    return made


def main_point(grid: Grid, roles: Iterable[str]) -> list[Measure]:
    """The outcomes of these roles at the main point, for every seed."""
    roles = tuple(roles)
    labs = (grid.lab(grid.point(seed)) for seed in grid.seeds)
    return [one for lab in labs for one in lab.outcomes(roles)]


def check_arms(experiments: Iterable[Experiment]) -> None:
    """Raises DataError if the data give none of the experiments any arms."""
    experiments = list(experiments)
    if experiments and not any(one.measures for one in experiments):
        lacking = " and ".join(dict.fromkeys(one.needs for one in experiments))
        raise DataError(f"There are no arms to run, since the data lack {lacking}")


def arms_of(experiments: Iterable[Experiment]) -> list[Arm]:
    """The arms behind experiments; measures of the same setting and seed are one arm."""
    found: dict[tuple[Setting, int], dict[Measure, None]] = {}
    for one in experiments:
        for measure in one.measures:
            found.setdefault((measure.setting, measure.seed), {})[measure] = None
    return [Arm(setting, seed, tuple(of)) for (setting, seed), of in found.items()]
