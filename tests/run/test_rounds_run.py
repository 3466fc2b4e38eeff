"""Rounds as they are run: what is started, what ends them, and what is said; the computing itself
is stood in for."""

import time
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic import Bed

from weakteach.results.rounds import Question, Survey
from weakteach.run.command import Sweep
from weakteach.run.parts import SPENT, Outcome, Part, deadline_of
from weakteach.run.prices import CostError
from weakteach.run.rounds import Rounds, run_rounds, standing_sentence
from weakteach.statistics.joined import Missing
from weakteach.statistics.rounds import Standing
from weakteach.study.experiments import size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.measures import Measure
from weakteach.study.presets import EMBEDDED

SEEDS = (10, 11, 12, 13)
PROMPTS = [f"q{n:02}" for n in range(20)]
LATER = time.time() + 1e6


class Machine:
    """Computes the rewards of a study's students without training any: weak labels are worse by
    ``gap``, more or less so by ``spread`` from seed to seed."""

    def __init__(self, folder, gap=-1.0, spread=0.01, seeds=SEEDS):
        choices = Choices(weak=("opt-45k",), seeds=seeds, student="opt-45k")
        grid = make_grid(EMBEDDED, EMBEDDED.first, choices, resolve=False)
        grid = replace(grid, first=("base", "human", "gold", "weak"))
        self.bed = Bed(folder)
        sizes = {"opt-45k": 45_000}
        self.rounds = Rounds([size_grid(grid)], seeds, sizes, self.bed.store, EMBEDDED.scale)
        self.gap, self.spread, self.parts, self.said = gap, spread, [], []
        self.fails: set[str] = set()
        self.late = 0

    def compute(self, measure: Measure) -> None:
        if measure.kind == "reward":
            level = (self.gap if measure.role == "weak" else 0.0) + self.spread * (
                -1
            ) ** measure.seed * (measure.role == "weak")
            values = {p: level + 0.1 * n for n, p in enumerate(PROMPTS)}
            self.bed.reward(measure.role, measure.seed, values, fingerprint=measure.fingerprint)
        else:
            compared = dict.fromkeys(PROMPTS, (1, 1, 1))
            self.bed.compared(measure.kind, measure.seed, compared, fingerprint=measure.fingerprint)

    def run(self, experiments, part: Part) -> Outcome:
        self.parts.append(part)
        failures = dict(part.failures)
        for measure in {m for arm in part.arms for m in arm.measures}:
            if measure.fingerprint in self.fails:
                failures[measure.fingerprint] = "broken"
            elif not self.late:
                self.compute(measure)
        computed = part.computed + len(part.arms)
        return Outcome(computed, None, False, self.late, failures)

    def go(self, check=lambda arms: None, deadline=LATER) -> Outcome:
        with open("/dev/null", "w") as nowhere:
            console = Console(file=nowhere, record=True, width=200)
            outcome = run_rounds(self.rounds, self.run, check, deadline, 2, console)
            self.said = console.export_text().splitlines()
        return outcome

    @property
    def seeds(self):
        return [sorted({arm.seed for arm in part.arms}) for part in self.parts]


def test_a_study_goes_round_after_round_until_all_is_decided(tmp_path):
    machine = Machine(tmp_path)
    machine.go()
    assert machine.seeds == [[10, 11], [12, 13]]
    assert "Round 1 of 2, seeds 10 to 11 (2 in all)" in machine.said[0]
    assert machine.said[1].startswith("0 decided; 0 given up; 2 open (2 comparisons). Round 2 of 2")
    assert machine.said[2].startswith("2 decided (2 comparisons); 0 given up; 0 open.")
    assert machine.said[2].endswith("No round is left that could decide more.")


def test_a_check_of_a_study_that_has_no_round_left_says_so(tmp_path, capsys):
    machine = Machine(tmp_path)
    machine.go()
    words = "--decide --max-seeds 4 --weak opt-45k --student opt-45k --check --storage"
    sweep = Sweep("sizes", "Sizes", lambda grid: list(machine.rounds.universe), first=True)
    assert sweep.run([*words.split(), str(tmp_path)]) == 0
    assert "All is there. No arm is left to run. Nothing was started." in capsys.readouterr().out


def test_claims_are_told_by_their_numbers_and_comparisons_by_how_many_there_are():
    questions = [
        Question(experiment, "", claim, (), lambda found: Missing(""))
        for experiment, claim in (
            ("E1", "E1"), ("E2", "E2 size"), ("sizes", ""), ("sizes", ""), ("E9", ""), ("E13", ""),
            ("E13", ""),
        )
    ]  # fmt: skip
    found = Survey(None, (), (), tuple(questions), (Standing(),) * len(questions))
    assert standing_sentence(found) == (
        "0 decided; 0 given up; 7 open (E1, E2 size, 2 comparisons, 1 comparison of E9, "
        "2 comparisons of E13)."
    )


def test_each_round_starts_with_its_longest_arms(tmp_path):
    """Those with fewer labeled pairs: what the teacher labels takes longer, its training less."""
    machine = Machine(tmp_path)
    machine.go()
    told = [[(arm.setting.fraction, arm.seed) for arm in part.arms] for part in machine.parts]
    assert told == [
        [("1/8", 10), ("1/8", 11), ("1/2", 10), ("1/2", 11)],
        [("1/8", 12), ("1/8", 13), ("1/2", 12), ("1/2", 13)],
    ]


def test_controls_get_seeds_in_the_first_round_alone(tmp_path):
    machine = Machine(tmp_path)
    machine.go()
    roles = [{m.role for arm in part.arms for m in arm.measures} for part in machine.parts]
    assert roles == [{"base", "human", "gold", "weak"}, {"human", "weak"}]


def test_the_next_round_is_as_long_as_the_steps_that_were_computed(tmp_path):
    """Those of the store took 2 seconds each: GoldRewards and Agreements."""
    machine = Machine(tmp_path)
    found = machine.rounds.survey({})
    for measure in {m for one in found.wanted for m in one.measures}:
        machine.compute(measure)
    second = machine.rounds.survey({})
    missing = machine.rounds.plan(second.wanted).missing
    rewards = [step for step in missing if type(step).__name__ == "GoldReward"]
    assert len(rewards) == 8
    assert machine.rounds.seconds(rewards, second.experiments) == pytest.approx(16)


def test_a_spent_budget_starts_no_round_and_a_larger_one_goes_on(tmp_path):
    machine = Machine(tmp_path)
    outcome = machine.go(deadline=deadline_of(0))
    assert outcome.computed == 0
    assert machine.seeds == [[]]  # the report is written all the same
    assert SPENT in machine.said
    machine.go()
    assert machine.seeds[1:] == [[10, 11], [12, 13]]


def test_arms_that_came_too_late_end_the_study_and_are_counted(tmp_path):
    machine = Machine(tmp_path)
    machine.late = 3
    machine.go()
    assert machine.seeds == [[10, 11]]
    assert machine.said[-1] == f"3 arms of the round were not started. {SPENT}"


def test_a_round_that_costs_too_much_is_not_started(tmp_path):
    def check(arms):
        raise CostError("The study would cost more")

    machine = Machine(tmp_path)
    machine.go(check=check)
    assert machine.seeds == [[10, 11]]  # the first one was checked before anything started
    assert machine.said[-1] == "Round 2 is not started: The study would cost more"


def test_what_failed_is_told_to_later_rounds_and_stops_none_of_the_others(tmp_path):
    machine = Machine(tmp_path)
    (study,) = machine.rounds.universe
    bad = next(
        m for m in study.measures
        if (m.role, m.kind, m.seed, m.setting.fraction) == ("weak", "reward", 10, "1/8")
    )  # fmt: skip
    machine.fails = {bad.fingerprint}
    outcome = machine.go()
    assert machine.seeds == [[10, 11], [12, 13]]
    assert {arm.setting.fraction for arm in machine.parts[1].arms} == {"1/2"}
    assert outcome.failures == {bad.fingerprint: "broken"}
    assert machine.said[-1].startswith(
        "1 decided (1 comparison); 0 given up; 1 open (1 comparison)."
    )


def test_a_finished_study_computes_nothing_and_writes_its_report(tmp_path):
    machine = Machine(tmp_path)
    machine.go()
    machine.parts.clear()
    machine.go()
    assert machine.seeds == [[]]
