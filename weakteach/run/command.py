"""The command line that all sweeps share."""

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from cyclopts import App

from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.run.address import ray_address
from weakteach.run.concurrency import planned
from weakteach.run.fit import footprints, memory_table
from weakteach.run.needs import needs_of
from weakteach.run.options import (
    Cost,
    CostOptions,
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
from weakteach.run.plan import (
    experiments_table,
    make_plan,
    plan_sentence,
    plan_table,
    seconds_of,
)
from weakteach.run.prices import check_cost, cost_sentence, cost_table, costs, rates, read_prices
from weakteach.run.readiness import check_cluster_file, check_needs, check_run, refuse
from weakteach.run.simulation import simulation_table, tasks_of
from weakteach.run.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    launch,
    script,
    terminal,
)
from weakteach.run.terminal import run as run_app
from weakteach.study.arms import Grid
from weakteach.study.experiments import Experiment, arms_of
from weakteach.study.grids import Choices, Endpoint, make_grid
from weakteach.study.presets import PRESETS


@dataclass(frozen=True)
class Sweep:
    """A question, asked over a grid; called, it is the command of its script.

    Results go to ``<storage>/studies/<name>/``. ``first`` takes the preset's shorter ranges, those
    of a first look.
    """

    name: str
    title: str
    experiments_of: Callable[[Grid], list[Experiment]]
    first: bool = False

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
        grid = make_grid(preset, ranges, choices, endpoint, resolve=False)
        store = Store(where.storage)
        experiments, resources = self.experiments_of(grid), resources_of(preset, execution)
        if not cost.plan:
            needs = needs_of(grid, experiments)
            problems = check_needs(needs, grid.preset.max_tokens)
            refuse(problems + check_cluster_file(running.cluster_file, resources))
            if needs.of_hub:
                grid = make_grid(preset, ranges, choices, endpoint)
                experiments = self.experiments_of(grid)
        return self.study(grid, experiments, store, resources, running, cost, verbose)

    def study(
        self,
        grid: Grid,
        experiments: list[Experiment],
        store: Store,
        resources: Resources,
        running: Running,
        cost: Cost,
        verbose: bool,
    ) -> int:
        console, arms = terminal(), arms_of(experiments)
        made = make_plan(arms, store, grid.preset.scale)
        prices = read_prices(cost.prices)
        at_once = planned(running.max_concurrent, running.address, resources)
        found = costs(made, prices, resources.gpu_type, cost.node_types)
        taken = footprints(made.missing, resources, grid.preset.max_tokens)
        if cost.plan:
            if len(experiments) > 1:
                console.print(experiments_table(experiments, store))
            console.print(plan_table(made))
            console.print(plan_sentence(made))
            console.print(f"{at_once or 'As many arms at a time as fit on the cluster'}.")
            console.print(cost_table(found, prices))
            console.print(cost_sentence(found, prices))
            tasks = tasks_of(made.missing, partial(seconds_of, scale=grid.preset.scale), resources)
            console.print(simulation_table(tasks, made.device, found, prices))
            console.print(memory_table(taken, resources))
        if cost.max_cost is not None:
            check_cost(made, found, prices, cost.max_cost)
        if cost.plan:
            return 0
        refuse(check_run(made.missing, taken, store, resources))
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
        from weakteach.run.sweep import describe, run_study
        from weakteach.study.manifest import study_folder

        study = describe(self.name, self.title, grid, store, shlex.join(sys.argv))
        console.print(f"{self.title}: {len(arms)} arms. {plan_sentence(made)}")
        if made.existing < made.unique:
            wanted = at_once.arms if at_once else 1
            joined = start_ray(running.address, wanted, resources, verbose, running.dashboard)
            if joined.dashboard:
                console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
            for line in what_waits(joined, resources):
                console.print(line, soft_wrap=True)
            patience = SECONDS_FOR_NODES if joined.by_address else 0.0
            at_once = arms_at_once(at_once, resources, patience)
            console.print(f"{at_once}.")
        paid = rates(found, prices) if cost.node_types else ()
        concurrent = at_once.arms if at_once else 1
        outcome = run_study(
            study,
            experiments,
            shared(store),
            resources,
            concurrent,
            console,
            grid.preset.scale,
            paid,
            running.tracker,
        )

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


def sweep(
    name: str, title: str, first: bool = False
) -> Callable[[Callable[[Grid], list[Experiment]]], Sweep]:
    """Make a function from a grid to experiments a Sweep; its docstring is what ``--help`` says."""
    return lambda experiments_of: Sweep(name, title, experiments_of, first)
