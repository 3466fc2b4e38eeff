"""A study that is decided in rounds of seeds: what the next round is, what it would take, and the
rounds themselves, one after the other."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rich.console import Console
from rich.table import Table

from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.report.words import duration
from weakteach.results.findings import NUMBERED
from weakteach.results.outcomes import Outcomes
from weakteach.results.rounds import Question, Survey, next_rounds, survey
from weakteach.run.parts import SPENT, Outcome, Part
from weakteach.run.plan import Plan, counted, make_plan, measured
from weakteach.run.prices import CostError, Tariff
from weakteach.run.simulation import longest_first
from weakteach.statistics.rounds import Standing
from weakteach.statistics.schedule import rounds_of, seeds_of, share
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.measures import Arm
from weakteach.study.presets import Scale


@dataclass(frozen=True)
class Rounds:
    """A study over all ``seeds`` that its rounds may take, in the order in which they take them.
    ``sizes`` are the numbers of parameters of models, by name."""

    universe: Sequence[Experiment]
    seeds: tuple[int, ...]
    sizes: Mapping[str, int]
    store: Store
    scale: Scale
    _seconds: dict[str, float] = field(default_factory=dict)

    def survey(self, failed: Mapping[str, str]) -> Survey:
        """How far the study is, by the artifacts that exist and the measures that ``failed``."""
        return survey(self.universe, Outcomes(self.store), self.sizes, self.seeds, failed)

    def plan(self, wanted: Sequence[Experiment]) -> Plan:
        return make_plan(arms_of(wanted), self.store, self.scale)

    def seconds(self, missing: Iterable[Step], done: Sequence[Experiment]) -> float:
        """Estimated seconds of the ``missing`` steps, one after the other, by what the steps of the
        ``done`` experiments took (see ``plan.measured``)."""
        steps = _steps(done)
        existing = self.store.existing(steps)
        took = ((step, self._took(step)) for step in steps if step.fingerprint in existing)
        estimate = measured(took, counted(self.scale, self.store, steps))
        return sum(estimate(step) for step in missing)

    def arms(self, found: Survey) -> list[Arm]:
        """The arms of the round that comes next, in the order in which they start."""
        return longest_first(arms_of(found.wanted), self.plan(found.wanted).seconds)

    def _took(self, step: Step) -> float:
        if step.fingerprint not in self._seconds:
            record = self.store.record(step)
            self._seconds[step.fingerprint] = record["seconds"] if record else 0.0
        return self._seconds[step.fingerprint]

    def sentence(self, found: Survey, at_once: int, tariff: Tariff | None = None) -> str:
        """Sentences on where the questions stand, the round that comes next, and what that takes;
        with a ``tariff``, in money, too."""
        stands = standing_sentence(found)
        number = found.number
        if number is None:
            return f"{stands} No round is left that could decide more."
        new = self.seeds[0 if number == 1 else seeds_of(number - 1) : seeds_of(number)]
        plan = self.plan(found.wanted)
        took = duration(self.seconds(plan.missing, found.experiments) / at_once)
        money = tariff.between(plan.device_hours) if tariff else ""
        paid = f", {money} {tariff.money}" if tariff and money else ""
        return (
            f"{stands if number > 1 else ''}{' ' if number > 1 else ''}"
            f"Round {number} of {rounds_of(len(self.seeds))}, seeds {new[0]} to {new[-1]} "
            f"({seeds_of(number)} in all): {len(plan.missing)} steps in {plan.arms} "
            f"arms, about {took} with {at_once} at a time{paid}."
        )

    def table(self, found: Survey, at_once: int, tariff: Tariff) -> Table:
        """A table of the rounds to come and the most that they take: what they take if no further
        question is decided or given up."""
        table = Table(title="Rounds, at most", title_justify="left")
        for heading in ("round", "seeds", "share of error", "arms", "steps", "time", tariff.money):
            table.add_column(heading, justify="right")
        planned: dict[str, Step] = {}
        hours = 0.0

        def taken(missing: Collection[Step], hours: float) -> tuple[str, ...]:
            took = duration(self.seconds(missing, found.experiments) / at_once)
            return str(len(missing)), took, tariff.between(hours)

        for number, wanted in next_rounds(self.universe, found, self.sizes, self.seeds):
            plan = self.plan(wanted)
            new = {s.fingerprint: s for s in plan.missing if s.fingerprint not in planned}
            of_new = sum(map(plan.seconds, new.values())) / 3600
            names = (number, seeds_of(number), f"{share(number):.3g} of 5%", plan.arms)
            table.add_row(*map(str, names), *taken(new.values(), of_new))
            planned, hours = planned | new, hours + of_new
        table.add_section()
        table.add_row("all", "", "", "", *taken(planned.values(), hours))
        return table


def _steps(experiments: Sequence[Experiment]) -> list[Step]:
    targets = (measure.target for one in experiments for measure in one.measures)
    return walk(target for target in targets if target is not None)


def standing_sentence(found: Survey) -> str:
    """How many and which questions are decided, given up and open."""
    decided = _named(found, lambda one: one.decided)
    given_up = _named(found, lambda one: one.given_up)
    open_ = _named(found, lambda one: one.open)
    parts = [(decided, "decided"), (given_up, "given up"), (open_, "open")]
    return "; ".join(f"{len(those)} {verb}{_list(those)}" for those, verb in parts) + "."


def _named(found: Survey, of: Callable[[Standing], bool]) -> list[Question]:
    pairs = zip(found.questions, found.standings, strict=True)
    return [one for one, there in pairs if of(there)]


def _list(questions: list[Question]) -> str:
    """The questions in brackets. Claims are named by their ids. Comparisons are counted, with the
    id of their experiment if others know that, too (NUMBERED)."""
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
    tariff: Tariff | None = None,
) -> Outcome:
    """Run one round after the other until every question is decided or given up, the seeds or the
    time are spent, or ``check`` refuses the arms of a round that is not the first (CostError).

    ``run`` computes a part of the study and writes its report. With a ``tariff``, the cost of
    each round is printed, too.
    """
    outcome, last = None, 0
    while True:
        failures: Mapping[str, str] = outcome.failures if outcome else {}
        computed = outcome.computed if outcome else 0
        found = rounds.survey(failures)
        console.print(rounds.sentence(found, at_once, tariff), soft_wrap=True)
        arms = rounds.arms(found)
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
    """Why a round is not started; empty if it is."""
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
