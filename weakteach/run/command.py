"""The command line that all sweeps share."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from cyclopts import App

from weakteach.artifacts.store import Store
from weakteach.run.address import is_here
from weakteach.run.asked import Asked, plan_of
from weakteach.run.deciding import Deciding
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
from weakteach.run.plan import plan_sentence
from weakteach.run.preflight import check_nf4
from weakteach.run.readiness import check_cluster_file, check_needs, refuse
from weakteach.run.terminal import launch, script, terminal
from weakteach.run.terminal import run as run_app
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment, check_arms
from weakteach.study.grids import Choices, Endpoint, make_grid
from weakteach.study.presets import PRESETS


@dataclass(frozen=True)
class Sweep:
    """A question that is asked over a grid. Calling it runs the command line of its script.

    Results go to ``<storage>/studies/<name>/``. ``first`` says that it takes the preset's shorter
    ranges, those for a first look. ``decides`` says that it goes in rounds of seeds unless it is
    told not to.
    """

    name: str
    title: str
    experiments_of: Callable[[Grid], list[Experiment]]
    first: bool = False
    decides: bool = False

    def __call__(self) -> NoReturn:
        launch(self.app())

    def run(self, words: Sequence[str]) -> int:
        """Run the command with these words as its command line. Return its exit code."""
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
        check_arms(experiments)
        store, resources = Store(where.storage), resources_of(preset, execution)
        if not cost.plan:
            needs = needs_of(grid, experiments)
            problems = check_needs(needs, grid.preset.max_tokens)
            problems += check_nf4(resources) if choices.lora_base == "nf4" else []
            refuse(problems + check_cluster_file(running.cluster_file, resources))
            if needs.of_hub:
                grid, experiments = found(resolve=True)
        asked = Asked(
            self.name, self.title, grid, experiments, seeds, store, resources, running, cost,
            budget, verbose,
        )  # fmt: skip
        return self.study(asked)

    def study(self, asked: Asked) -> int:
        """Plan or run what was asked for. Return the exit code."""
        console, planned = terminal(), plan_of(asked)
        if asked.cost.plan:
            planned.show(console)
        planned.check_cost()
        if asked.cost.plan:
            return 0
        planned.check_ready()
        if asked.running.check:
            if planned.computes and not is_here(asked.running.address):
                from weakteach.run.cluster import look_at  # Ray

                nodes, waits = look_at(asked.running.address, planned.widest, asked.verbose)
                planned.check_nodes(nodes)
                for line in waits:
                    console.print(line, soft_wrap=True)
            console.print(f"All is there. {plan_sentence(planned.plan)} Nothing was started.")
            return 0
        from weakteach.run.starting import start  # Ray and torch

        return start(console, planned)


def sweep(
    name: str, title: str, first: bool = False, decides: bool = False
) -> Callable[[Callable[[Grid], list[Experiment]]], Sweep]:
    """Make a function from a grid to experiments a Sweep; its docstring is what ``--help`` says."""
    return lambda experiments_of: Sweep(name, title, experiments_of, first, decides)
