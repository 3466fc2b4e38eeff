"""A study that is decided in rounds of seeds: what the next round is, what it would take, and the
rounds themselves, one after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rich.console import Console
from rich.table import Table

from weakteach.artifacts.dropping import at_hand
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.report.words import duration
from weakteach.results.findings import NUMBERED
from weakteach.results.outcomes import Outcomes
from weakteach.results.rounds import Question, Survey, next_rounds, survey
from weakteach.run.parts import SPENT, Outcome, Part
from weakteach.run.plan import model_of, operations
from weakteach.run.prices import CostError
from weakteach.statistics.rounds import Standing
from weakteach.statistics.schedule import rounds_of, seeds_of, share
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.measures import Arm
from weakteach.study.presets import Scale


@dataclass(frozen=True)
class Rounds:
    """A study over all seeds that its rounds may take, in their order; ``sizes`` are the parameters
    of models by name."""

    universe: Sequence[Experiment]
    seeds: tuple[int, ...]
    sizes: Mapping[str, int]
    store: Store
    scale: Scale
    _seconds: dict[str, float] = field(default_factory=dict)

    def survey(self, failed: Mapping[str, str]) -> Survey:
        """How far the study is, by the artifacts that there are now."""
        return survey(self.universe, Outcomes(self.store), self.sizes, self.seeds, failed)

    def missing(self, wanted: Sequence[Experiment]) -> list[Step]:
        steps = _steps(wanted)
        existing = at_hand(self.store, steps)
        return [step for step in steps if step.fingerprint not in existing]

    def seconds(self, missing: Sequence[Step], done: Sequence[Experiment]) -> float:
        """Of these steps, one after the other: the mean of steps of the same kind and model among
        those done, or else what their floating-point operations take on the preset's device."""
        steps = _steps(done)
        existing = self.store.existing(steps)
        found: dict[tuple[str, str], list[float]] = {}
        for step in steps:
            if step.fingerprint in existing:
                found.setdefault(_kind(step), []).append(self._took(step))
        means = {kind: sum(took) / len(took) for kind, took in found.items()}
        speed = self.scale.flops_per_second
        return sum(
            means[_kind(step)] if _kind(step) in means else operations(step, self.scale) / speed
            for step in missing
        )

    def _took(self, step: Step) -> float:
        if step.fingerprint not in self._seconds:
            record = self.store.record(step)
            self._seconds[step.fingerprint] = record["seconds"] if record else 0.0
        return self._seconds[step.fingerprint]

    def sentence(self, found: Survey, at_once: int) -> str:
        """Where the questions stand, the round that comes next, and what it takes."""
        stands = standing_sentence(found)
        number = found.number
        if number is None:
            return f"{stands} No round is left that could decide more."
        new = self.seeds[0 if number == 1 else seeds_of(number - 1) : seeds_of(number)]
        missing = self.missing(found.wanted)
        took = duration(self.seconds(missing, found.experiments) / at_once)
        return (
            f"{stands if number > 1 else ''}{' ' if number > 1 else ''}"
            f"Round {number} of {rounds_of(len(self.seeds))}, seeds {new[0]} to {new[-1]} "
            f"({seeds_of(number)} in all): {len(missing)} steps in {len(arms_of(found.wanted))} "
            f"arms, about {took} with {at_once} at a time."
        )

    def table(self, found: Survey, at_once: int) -> Table:
        """The rounds to come, and what they take at most: if no more is decided or given up."""
        table = Table(title="Rounds, at most", title_justify="left")
        for heading in ("round", "seeds", "share of error", "arms", "steps", "time"):
            table.add_column(heading, justify="right")
        planned: set[str] = set()
        for number, wanted in next_rounds(self.universe, found, self.sizes, self.seeds):
            missing = [s for s in self.missing(wanted) if s.fingerprint not in planned]
            planned |= {step.fingerprint for step in missing}
            took = duration(self.seconds(missing, found.experiments) / at_once)
            counts = (len(arms_of(wanted)), len(missing))
            part = f"{share(number):.3g} of 5%"
            table.add_row(str(number), str(seeds_of(number)), part, *map(str, counts), took)
        return table


def _steps(experiments: Sequence[Experiment]) -> list[Step]:
    targets = (measure.target for one in experiments for measure in one.measures)
    return walk(target for target in targets if target is not None)


def _kind(step: Step) -> tuple[str, str]:
    model = model_of(step)
    return type(step).__name__, model.label if model else ""


def standing_sentence(found: Survey) -> str:
    """What is decided, given up and open."""
    decided = _named(found, lambda one: one.decided)
    given_up = _named(found, lambda one: one.given_up)
    open_ = _named(found, lambda one: one.open)
    parts = [(decided, "decided"), (given_up, "given up"), (open_, "open")]
    return "; ".join(f"{len(those)} {verb}{_list(those)}" for those, verb in parts) + "."


def _named(found: Survey, of: Callable[[Standing], bool]) -> list[Question]:
    pairs = zip(found.questions, found.standings, strict=True)
    return [one for one, there in pairs if of(there)]


def _list(questions: list[Question]) -> str:
    """The ids of claims; comparisons by their number, and the number of their experiment, if it
    has one that others know."""
    said = []
    for (claim, experiment), same in groupby(questions, lambda one: (one.claim, one.experiment)):
        count = len(list(same))
        compared = f"{count} comparison{'s' * (count > 1)}"
        numbered = f" of {experiment}" if NUMBERED.fullmatch(experiment) else ""
        said.append(claim or f"{compared}{numbered}")
    return f" ({', '.join(said)})" if said else ""


def run_rounds(
    rounds: Rounds,
    run: Callable[[Sequence[Experiment], Part], Outcome],
    check: Callable[[list[Arm]], None],
    deadline: float,
    at_once: int,
    console: Console,
) -> Outcome:
    """Run one round after the other until every question is decided or given up, the seeds or the
    time are spent, or ``check`` refuses the arms of a round that is not the first (CostError).

    ``run`` computes a part of the study and writes its report.
    """
    outcome, last = None, 0
    while True:
        failures: Mapping[str, str] = outcome.failures if outcome else {}
        computed = outcome.computed if outcome else 0
        found = rounds.survey(failures)
        console.print(rounds.sentence(found, at_once), soft_wrap=True)
        arms = arms_of(found.wanted)
        if found.number is not None and (why := _stop(found.number, last, arms, check, deadline)):
            console.print(why, soft_wrap=True)
            arms = []
        if outcome and not arms:
            return outcome
        outcome = run(found.experiments, Part(arms, deadline, computed, failures))
        if outcome.interrupted or not arms:
            return outcome
        if outcome.late:
            console.print(f"{outcome.late} arms of the round were not started. {SPENT}")
            return outcome
        last = found.number or last


def _stop(
    number: int, last: int, arms: list[Arm], check: Callable[[list[Arm]], None], deadline: float
) -> str:
    """Why a round is not started; else nothing."""
    if time.time() >= deadline:
        return SPENT
    if number == last:
        return "Steps of the round are missing though none has failed: the same command goes on."
    if last:
        try:
            check(arms)
        except CostError as error:
            return f"Round {number} is not started: {error}"
    return ""
