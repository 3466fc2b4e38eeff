"""Starts what was planned: joins or starts Ray, runs the study and tells what it found.

Ray and torch take seconds to import, for which plans and help texts should not wait: this module
is imported only when all is ready.
"""

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from weakteach.report.terminal import terminal_tables
from weakteach.run.asked import Planned, RoundsCost
from weakteach.run.cluster import (
    SECONDS_FOR_NODES,
    arms_at_once,
    nodes_now,
    shared,
    start_ray,
    what_waits,
)
from weakteach.run.parts import SPENT, Outcome, Part, deadline_of
from weakteach.run.plan import plan_sentence
from weakteach.run.prices import rates
from weakteach.run.rounds import run_rounds
from weakteach.run.sweep import run_study
from weakteach.run.terminal import EXIT_FAILED, EXIT_INTERRUPTED
from weakteach.study.experiment import Experiment
from weakteach.study.manifest import describe, study_folder


def start(console: Console, planned: Planned) -> int:
    """Run the study to its end, or until its budget is spent or it is interrupted, and tell what it
    found. Return the exit code."""
    asked = planned.asked
    if planned.arms:
        count, sentence = len(planned.arms), plan_sentence(planned.plan)
        console.print(f"{asked.title}: {count} arms. {sentence}")
    deadline = deadline_of(asked.budget)
    concurrent = _join(console, planned) if planned.computes else planned.concurrent
    outcome = _run(console, planned, concurrent, deadline)
    return _tell(console, planned, outcome)


def _join(console: Console, planned: Planned) -> int:
    """Join or start Ray. Return how many arms run at a time."""
    running, resources = planned.asked.running, planned.asked.resources
    joined = start_ray(
        running.address, planned.concurrent, resources, planned.asked.verbose, running.dashboard
    )
    if joined.dashboard:
        console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
    for line in what_waits(joined, planned.widest, SECONDS_FOR_NODES):
        console.print(line, soft_wrap=True)
    planned.check_nodes(nodes_now())
    at_once = arms_at_once(joined, planned.at_once, resources, SECONDS_FOR_NODES)
    console.print(f"{at_once}.")
    return at_once.arms


def _run(console: Console, planned: Planned, concurrent: int, deadline: float) -> Outcome:
    asked = planned.asked
    study = describe(
        asked.name, asked.title, asked.grid, asked.store, shlex.join(sys.argv), asked.seeds,
        asked.cost.label_price,
    )  # fmt: skip
    paid = rates(planned.costs, planned.tariff.prices) if asked.cost.node_types else ()

    def run(experiments: Sequence[Experiment], part: Part) -> Outcome:
        return run_study(
            study, experiments, shared(asked.store), asked.resources, concurrent, console, paid,
            asked.running.tracker, part, asked.running.drop_sft,
        )  # fmt: skip

    if planned.rounds:
        # A user who names neither nodes nor a limit may run on a machine that costs nothing.
        paid_for = bool(asked.cost.node_types) or asked.cost.max_cost is not None
        tariff = planned.tariff if paid_for else None
        check = RoundsCost(planned)
        return run_rounds(planned.rounds, run, check, deadline, concurrent, console, tariff)
    outcome = run(asked.experiments, Part(planned.arms, deadline))
    if outcome.late:
        console.print(f"{outcome.late} arms were not started. {SPENT}")
    return outcome


def _tell(console: Console, planned: Planned, outcome: Outcome) -> int:
    for table in terminal_tables(outcome.findings):
        console.print(table)
    for arm, roles, why in outcome.findings.failures:
        console.print(f"failed: {arm}, {roles}: {why}", soft_wrap=True)
    console.print(f"{outcome.computed} steps computed.")
    folder = study_folder(planned.asked.store, planned.asked.name)
    console.print(f"Report: {folder}/report.html", soft_wrap=True)
    if outcome.interrupted:
        console.print("Interrupted. The same command goes on from here.")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if outcome.findings.failures else 0
