"""What a sweep was asked for, and all that is known of it before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal

from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.size import parameters
from weakteach.run.address import ray_address
from weakteach.run.concurrency import AtOnce, planned
from weakteach.run.disk import Disk, bytes_on_host, disk_of
from weakteach.run.fit import Footprint, footprints, memory_table
from weakteach.run.nodes import NodeType
from weakteach.run.options import Cost, Running
from weakteach.run.plan import (
    Plan,
    experiments_table,
    make_plan,
    plan_sentence,
    plan_table,
)
from weakteach.run.prices import Cost as OfNodes
from weakteach.run.prices import (
    Tariff,
    check_cost,
    cost_sentence,
    cost_table,
    read_prices,
    scale_on,
    tariff_of,
)
from weakteach.run.readiness import Taken, check_nodes, check_run, refuse, tell_open_questions
from weakteach.run.simulation import longest_first, simulation_table, tasks_of, widest
from weakteach.study.arms import Grid
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.measures import Arm
from weakteach.study.policies import model_of, name_of, sizes_of
from weakteach.study.presets import Scale

if TYPE_CHECKING:
    from weakteach.results.rounds import Survey
    from weakteach.run.rounds import Rounds


@dataclass(frozen=True)
class Asked:
    """What is to be run: ``experiments`` over all ``seeds`` of rounds or, if there are no
    ``seeds``, over a fixed grid. ``budget`` is the seconds after which no arm is started."""

    name: str
    title: str
    grid: Grid
    experiments: list[Experiment]
    seeds: tuple[int, ...]
    store: Store
    resources: Resources
    running: Running
    cost: Cost
    budget: float | None
    verbose: bool

    @property
    def scale(self) -> Scale:
        """The preset's, for GPUs of the type that is asked for."""
        prices = read_prices(self.cost.prices)
        return scale_on(self.resources.gpu_type, self.grid.preset.scale, prices)

    @property
    def max_tokens(self) -> int:
        return self.grid.preset.max_tokens

    def rounds(self) -> "Rounds | None":
        """The rounds of the study; None where the grid is fixed."""
        if not self.seeds:
            return None
        from weakteach.run.rounds import Rounds  # scipy, which plans of fixed grids do not need

        models = self.grid.models
        # A plan asks nothing of the hub.
        named = {name_of(one): int(parameters(model_of(one))) for one in models}
        sizes = named if self.cost.plan else sizes_of(models)
        return Rounds(self.experiments, self.seeds, sizes, self.store, self.scale)


@dataclass(frozen=True)
class Planned:
    """The ``arms`` that come first (of a fixed grid, all of them), in the order in which they
    start, and what they take. ``at_once`` is None if the number of arms that run at a time depends
    on a cluster that is yet to be joined."""

    asked: Asked
    rounds: "Rounds | None"
    survey: "Survey | None"
    experiments: Sequence[Experiment]
    arms: list[Arm]
    plan: Plan
    tariff: Tariff
    at_once: AtOnce | None
    footprints: list[Footprint]
    disk: Disk
    bytes_on_host: float

    @property
    def concurrent(self) -> int:
        return self.at_once.arms if self.at_once else 1

    @property
    def costs(self) -> tuple[OfNodes, ...]:
        """What the arms that come first cost on each node type that could run them."""
        return self.tariff.costs(self.plan.device_hours)

    @property
    def computes(self) -> bool:
        return self.plan.existing < self.plan.unique

    @property
    def widest(self) -> Resources:
        """The resources of the step that asks for most."""
        return widest(self.plan.missing, self.asked.resources, self.asked.max_tokens)

    def show(self, console: Console) -> None:
        """Print what would be computed, and what it takes."""
        asked, plan, found = self.asked, self.plan, self.survey
        if len(self.experiments) > 1 and (found is None or found.number == 1):
            console.print(experiments_table(self.experiments, asked.store))
        if plan.rows:
            console.print(plan_table(plan))
            console.print(plan_sentence(plan))
        if self.rounds and found:
            console.print(self.rounds.table(found, self.concurrent, self.tariff))
            console.print(self.rounds.sentence(found, self.concurrent, self.tariff))
            if asked.cost.max_cost is not None:
                console.print("--max-cost is checked before each round, with those before it.")
        console.print(f"{self.at_once or 'As many arms at a time as fit on the cluster'}.")
        prices = self.tariff.prices
        console.print(cost_table(self.costs, prices))
        console.print(cost_sentence(plan, self.tariff))
        tasks = tasks_of(plan.missing, plan.seconds, asked.resources, asked.max_tokens)
        console.print(simulation_table(tasks, plan.device, self.costs, prices))
        console.print(memory_table(self.footprints, asked.resources))
        on_host = decimal(round(self.bytes_on_host))
        console.print(f"{self.disk} A host keeps up to {on_host} while it computes.")

    def check_cost(self) -> None:
        """Raises CostError if the arms that come first cost more than the user allows."""
        if self.asked.cost.max_cost is not None:
            check_cost(self.plan, self.tariff, self.asked.cost.max_cost)

    def check_ready(self) -> None:
        """Raises UserError if the disk or the memory is too small, if a cluster file's nodes cannot
        hold the steps, if the storage cannot be written, or if no cluster answers at its address.
        Prints what a cluster file leaves open."""
        asked = self.asked
        written = self.disk.needed(asked.running.drop_sft)
        taken = Taken(
            self.plan.missing, self.widest, asked.max_tokens, self.footprints, written,
            self.bytes_on_host,
        )  # fmt: skip
        refuse(check_run(taken, asked.store, asked.running))
        tell_open_questions(asked.running.cluster_file, self.widest)
        asked.store.check_writable()
        if self.computes:
            ray_address(asked.running.address)

    def check_nodes(self, nodes: Sequence[NodeType]) -> None:
        """Raises UserError if steps do not fit the GPUs or the memory of nodes that are there."""
        missing, resources = self.plan.missing, self.asked.resources
        refuse(check_nodes(nodes, missing, resources, self.asked.max_tokens))


class RoundsCost:
    """Checks the cost of rounds. It is called with the arms of a round before that runs, and raises
    CostError if the round and those before it cost more than the user allows."""

    def __init__(self, planned: Planned) -> None:
        self._planned = planned
        self._rows = planned.plan.rows

    def __call__(self, arms: list[Arm]) -> None:
        asked = self._planned.asked
        if asked.cost.max_cost is None:
            return
        plan = make_plan(arms, asked.store, asked.scale)
        self._rows += plan.rows
        check_cost(replace(plan, rows=self._rows), self._planned.tariff, asked.cost.max_cost)


def plan_of(asked: Asked) -> Planned:
    """Plan what was asked for: look at which steps exist, and at what the missing ones take."""
    resources = asked.resources
    at_once = planned(asked.running.max_concurrent, asked.running.address, resources)
    rounds = asked.rounds()
    found = rounds.survey({}) if rounds else None
    experiments = found.wanted if found else asked.experiments
    unordered = arms_of(experiments)
    plan = make_plan(unordered, asked.store, asked.scale)
    arms = longest_first(unordered, plan.seconds)
    prices = read_prices(asked.cost.prices)
    return Planned(
        asked=asked,
        rounds=rounds,
        survey=found,
        experiments=experiments,
        arms=arms,
        plan=plan,
        tariff=tariff_of(plan.device, prices, resources.gpu_type, asked.cost.node_types),
        at_once=at_once,
        footprints=footprints(plan.missing, resources, asked.max_tokens),
        # As long as the cluster has not told how many arms run at a time, all may.
        disk=disk_of(plan.missing, arms, at_once.arms if at_once else len(arms)),
        bytes_on_host=bytes_on_host(plan.missing),
    )
