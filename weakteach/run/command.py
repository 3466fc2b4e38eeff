"""The command line that all sweeps share."""

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from cyclopts import App
from rich.filesize import decimal

from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.size import parameters
from weakteach.run.address import ray_address
from weakteach.run.concurrency import planned
from weakteach.run.deciding import Deciding
from weakteach.run.disk import bytes_on_host, disk_of
from weakteach.run.fit import footprints, memory_table
from weakteach.run.needs import needs_of
from weakteach.run.options import (
    Cost,
    CostOptions,
    DecidingOptions,
    EndpointOptions,
    ExecutionOptions,
    GridOptions,
    Running,
    RunningOptions,
    Verbose,
    Where,
    WhereOptions,
    resources_of,
)
from weakteach.run.parts import SPENT, Outcome, Part, deadline_of
from weakteach.run.plan import (
    experiments_table,
    make_plan,
    plan_sentence,
    plan_table,
    seconds_of,
)
from weakteach.run.preflight import check_nf4
from weakteach.run.prices import check_cost, cost_sentence, cost_table, costs, rates, read_prices
from weakteach.run.readiness import check_cluster_file, check_needs, check_run, refuse
from weakteach.run.simulation import longest_first, simulation_table, tasks_of, widest
from weakteach.run.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    launch,
    script,
    terminal,
)
from weakteach.run.terminal import run as run_app
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.grids import Choices, Endpoint, make_grid
from weakteach.study.measures import Arm
from weakteach.study.policies import model_of, name_of, sizes_of
from weakteach.study.presets import PRESETS

if TYPE_CHECKING:
    from weakteach.run.rounds import Rounds


@dataclass(frozen=True)
class Sweep:
    """A question, asked over a grid; called, it is the command of its script.

    Results go to ``<storage>/studies/<name>/``. ``first`` takes the preset's shorter ranges, those
    of a first look. ``decides`` says that it goes in rounds of seeds unless it is told not to.
    """

    name: str
    title: str
    experiments_of: Callable[[Grid], list[Experiment]]
    first: bool = False
    decides: bool = False

    def __call__(self) -> NoReturn:
        launch(self.app())

    def run(self, words: Sequence[str]) -> int:
        """Run the command with these words as its command line; its exit code."""
        return run_app(self.app(), words)

    def app(self) -> App:
        paragraphs = (inspect.getdoc(self.experiments_of) or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        return script(self.command, text)

    def command(
        self,
        *,
        where: WhereOptions = Where(),  # noqa: B008, a frozen value
        choices: GridOptions = Choices(),  # noqa: B008
        endpoint: EndpointOptions = Endpoint(),  # noqa: B008
        execution: ExecutionOptions = None,
        running: RunningOptions = Running(),  # noqa: B008
        deciding: DecidingOptions = Deciding(),  # noqa: B008
        cost: CostOptions = Cost(),  # noqa: B008
        verbose: Verbose = False,
    ) -> int:
        """Plan or run the study; its exit code.

        Parameters
        ----------
        verbose
            Show workers' logs and tracebacks.
        """
        preset = PRESETS[where.preset]
        ranges = preset.first if self.first else preset.ranges
        seeds, budget = deciding.seeds(self.decides, choices.seeds), deciding.seconds
        if seeds:
            choices = replace(choices, seeds=seeds)

        def found(resolve: bool) -> tuple[Grid, list[Experiment]]:
            grid = make_grid(preset, ranges, choices, endpoint, resolve)
            grid = replace(grid, more_seeds=()) if seeds else grid
            return grid, self.experiments_of(grid)

        grid, experiments = found(resolve=False)
        store, resources = Store(where.storage), resources_of(preset, execution)
        if not cost.plan:
            needs = needs_of(grid, experiments)
            problems = check_needs(needs, grid.preset.max_tokens)
            problems += check_nf4(resources) if choices.lora_base == "nf4" else []
            refuse(problems + check_cluster_file(running.cluster_file, resources))
            if needs.of_hub:
                grid, experiments = found(resolve=True)
        asked = Asked(grid, experiments, seeds, store, resources)
        return self.study(asked, running, cost, budget, verbose)

    def study(
        self, asked: "Asked", running: Running, cost: Cost, budget: float | None, verbose: bool
    ) -> int:
        console, store, resources = terminal(), asked.store, asked.resources
        at_once = planned(running.max_concurrent, running.address, resources)
        concurrent, deadline = at_once.arms if at_once else 1, deadline_of(budget)
        prices = read_prices(cost.prices)
        rounds = asked.rounds(resolved=not cost.plan)
        found = rounds.survey({}) if rounds else None
        now = found.wanted if found else asked.experiments
        arms = arms_of(now)
        made = make_plan(arms, store, asked.grid.preset.scale)
        of_plan = costs(made, prices, resources.gpu_type, cost.node_types)
        seconds = partial(seconds_of, scale=asked.grid.preset.scale)
        taken = footprints(made.missing, resources, asked.grid.preset.max_tokens)
        disk, on_host = disk_of(made.missing, arms, concurrent), bytes_on_host(made.missing)
        if cost.plan:
            if len(now) > 1 and (found is None or found.number == 1):
                console.print(experiments_table(now, store))
            if made.rows:
                console.print(plan_table(made))
                console.print(plan_sentence(made))
            if rounds and found:
                console.print(rounds.table(found, concurrent))
                console.print(rounds.sentence(found, concurrent))
            console.print(f"{at_once or 'As many arms at a time as fit on the cluster'}.")
            console.print(cost_table(of_plan, prices))
            console.print(cost_sentence(of_plan, prices))
            tasks = tasks_of(made.missing, seconds, resources, asked.grid.preset.max_tokens)
            console.print(simulation_table(tasks, made.device, of_plan, prices))
            console.print(memory_table(taken, resources))
            console.print(f"{disk} A host keeps up to {decimal(round(on_host))} while it computes.")
        if cost.max_cost is not None:
            check_cost(made, of_plan, prices, cost.max_cost)
        if cost.plan:
            return 0
        most = widest(made.missing, resources, asked.grid.preset.max_tokens)
        refuse(
            check_run(disk.needed(running.drop_sft), taken, store, resources)
            + check_cluster_file(running.cluster_file, most, on_host)
        )
        store.check_writable()
        if made.existing < made.unique:
            ray_address(running.address)
        if running.check:
            console.print(f"All is there. {plan_sentence(made)} Nothing was started.")
            return 0

        # Ray and torch take seconds to import, which plans and help texts do not wait for.
        from weakteach.report.terminal import terminal_tables
        from weakteach.run.cluster import (
            SECONDS_FOR_NODES,
            arms_at_once,
            shared,
            start_ray,
            what_waits,
        )
        from weakteach.run.sweep import run_study
        from weakteach.study.manifest import describe, study_folder

        command = shlex.join(sys.argv)
        study = describe(
            self.name, self.title, asked.grid, store, command, asked.seeds, cost.label_price
        )
        console.print(f"{self.title}: {len(arms)} arms. {plan_sentence(made)}" if arms else "")
        if made.existing < made.unique:
            wanted = at_once.arms if at_once else 1
            joined = start_ray(running.address, wanted, resources, verbose, running.dashboard)
            if joined.dashboard:
                console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
            for line in what_waits(joined, most):
                console.print(line, soft_wrap=True)
            patience = SECONDS_FOR_NODES if joined.by_address else 0.0
            at_once = arms_at_once(at_once, resources, patience)
            console.print(f"{at_once}.")
            concurrent = at_once.arms
        paid = rates(of_plan, prices) if cost.node_types else ()
        planned_rows = list(made.rows)

        def run(experiments: Sequence[Experiment], part: Part) -> Outcome:
            return run_study(
                study, experiments, shared(store), resources, concurrent, console, paid,
                running.tracker, part, running.drop_sft,
            )  # fmt: skip

        def check(arms: list[Arm]) -> None:
            if cost.max_cost is not None:
                plan = make_plan(arms, store, asked.grid.preset.scale)
                planned_rows.extend(plan.rows)
                whole = replace(plan, rows=tuple(planned_rows))
                found = costs(whole, prices, resources.gpu_type, cost.node_types)
                check_cost(whole, found, prices, cost.max_cost)

        if rounds:
            from weakteach.run.rounds import run_rounds

            outcome = run_rounds(rounds, run, check, deadline, concurrent, console)
        else:
            missing = {step.fingerprint for step in made.missing}
            arms = longest_first(
                arms, lambda step: seconds(step) if step.fingerprint in missing else 0.0
            )
            outcome = run(asked.experiments, Part(arms, deadline))
            if outcome.late:
                console.print(f"{outcome.late} arms were not started. {SPENT}")

        for table in terminal_tables(outcome.findings):
            console.print(table)
        for arm, roles, why in outcome.findings.failures:
            console.print(f"failed: {arm}, {roles}: {why}", soft_wrap=True)
        console.print(f"{outcome.computed} steps computed.")
        console.print(f"Report: {study_folder(store, self.name)}/report.html", soft_wrap=True)
        if outcome.interrupted:
            console.print("Interrupted. The same command goes on from here.")
            return EXIT_INTERRUPTED
        return EXIT_FAILED if outcome.findings.failures else 0


@dataclass(frozen=True)
class Asked:
    """What is to be run: ``experiments`` over all ``seeds`` of rounds, or over a fixed grid, which
    has none of these."""

    grid: Grid
    experiments: list[Experiment]
    seeds: tuple[int, ...]
    store: Store
    resources: Resources

    def rounds(self, resolved: bool) -> "Rounds | None":
        if not self.seeds:
            return None
        from weakteach.run.rounds import Rounds  # scipy, which plans of a fixed grid need not

        # A plan asks nothing of the hub.
        named = {name_of(one): int(parameters(model_of(one))) for one in self.grid.models}
        sizes = sizes_of(self.grid.models) if resolved else named
        scale = self.grid.preset.scale
        return Rounds(self.experiments, self.seeds, sizes, self.store, scale)


def sweep(
    name: str, title: str, first: bool = False, decides: bool = False
) -> Callable[[Callable[[Grid], list[Experiment]]], Sweep]:
    """Make a function from a grid to experiments a Sweep; its docstring is what ``--help`` says."""
    return lambda experiments_of: Sweep(name, title, experiments_of, first, decides)
