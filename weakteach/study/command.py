"""The command line that all sweeps share."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from weakteach.artifacts.errors import StepError, UserError
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import Gold, RewardModel, WorldGold
from weakteach.models.spec import UNRESOLVED, find_model
from weakteach.preferences.domain import Domain
from weakteach.preferences.embedded import DOMAINS
from weakteach.preferences.pair import DataError
from weakteach.preferences.sources import (
    FILE_FORMATS,
    HubSource,
    Source,
    WorldSource,
    file_source,
    hub_source,
)
from weakteach.study.arms import Arm, Grid, policy_of
from weakteach.study.plan import make_plan, plan_sentence, plan_table
from weakteach.study.presets import PRESETS, Preset
from weakteach.study.prices import check_cost, cost_sentence, cost_table, costs, read_prices

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
DEFAULT_STORAGE = "runs"


T = TypeVar("T")


class DtypeName(StrEnum):
    """The values of ``resources.Dtype``, as choices of an option."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class PresetName(StrEnum):
    """The keys of PRESETS, as choices of an option."""

    EMBEDDED = "embedded"
    LAPTOP = "laptop"
    PAPER = "paper"


@dataclass(frozen=True)
class Options:
    """What the user asked for; None leaves it to the preset."""

    preset: Preset
    storage: str
    weak: str | None = None
    student: str | None = None
    fractions: str | None = None
    seeds: str | None = None
    data: str | None = None
    gold: str | None = None
    test_pairs: int | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    max_concurrent: int | None = None
    address: str | None = None
    plan: bool = False
    prices: Path | None = None
    node_types: str | None = None
    max_cost: float | None = None
    verbose: bool = False


def sweep(name: str, title: str) -> Callable[[Callable[[Grid], list[Arm]]], typer.Typer]:
    """Make a function from a grid to its arms the command of a sweep script.

    The function's docstring is what ``--help`` says. Results go to ``<storage>/studies/<name>/``.
    """

    def decorate(arms_of: Callable[[Grid], list[Arm]]) -> typer.Typer:
        def command(
            preset: Annotated[
                PresetName, typer.Option(help="Scale of the study: models, data and recipes.")
            ] = PresetName.EMBEDDED,
            storage: Annotated[
                str,
                typer.Option(
                    envvar="WEAKTEACH_STORAGE",
                    help="Where artifacts and results go: a folder, s3://… or gs://…. What lies "
                    "there is not computed again.",
                ),
            ] = DEFAULT_STORAGE,
            weak: Annotated[
                str | None, typer.Option(help="Teacher models, separated by commas.")
            ] = None,
            student: Annotated[str | None, typer.Option(help="Student model.")] = None,
            fractions: Annotated[
                str | None, typer.Option(help="Labeled fractions, such as 1/16,1/2.")
            ] = None,
            seeds: Annotated[str | None, typer.Option(help="Seeds, such as 0,1,2.")] = None,
            data: Annotated[
                str | None,
                typer.Option(
                    help="Preference pairs: world:<pairs>, posts:<pairs>, a .jsonl, .jsonl.gz, "
                    ".csv or .parquet file, a datasets folder, or a hub id."
                ),
            ] = None,
            gold: Annotated[
                str | None, typer.Option(help="Gold reward: world, posts, a reward model, or none.")
            ] = None,
            test_pairs: Annotated[
                int | None, typer.Option(min=2, help="Pairs held out as the test part.")
            ] = None,
            train_workers: Annotated[
                int | None,
                typer.Option(min=0, help="Data-parallel training workers; 0 trains in the trial."),
            ] = None,
            label_actors: Annotated[
                int | None,
                typer.Option(min=0, help="Actors that label; 0 labels in Ray tasks."),
            ] = None,
            gpu_type: Annotated[
                str | None,
                typer.Option(help="GPU by its name in Ray, such as A100 or L4; any for any."),
            ] = None,
            label_actors_max: Annotated[
                int | None,
                typer.Option(min=1, help="Actors up to which the pool may grow; fixed without."),
            ] = None,
            threads: Annotated[
                int | None, typer.Option(min=1, help="Torch threads of each process.")
            ] = None,
            dtype: Annotated[
                DtypeName | None,
                typer.Option(help="Of computations; trained weights stay in float32."),
            ] = None,
            max_concurrent: Annotated[
                int | None, typer.Option(min=1, help="Arms that run at a time.")
            ] = None,
            address: Annotated[
                str | None,
                typer.Option(
                    help="Ray cluster to run on; without it (and RAY_ADDRESS), Ray starts here."
                ),
            ] = None,
            plan: Annotated[
                bool, typer.Option("--plan", help="Say what would be computed; run nothing.")
            ] = False,
            prices: Annotated[
                Path | None,
                typer.Option(help="Price table of node types (TOML), in place of the one shipped."),
            ] = None,
            node_types: Annotated[
                str | None,
                typer.Option(help="Node types of the price table that you run on; all without it."),
            ] = None,
            max_cost: Annotated[
                float | None,
                typer.Option(
                    min=0, help="Do not start if the planned cost on any of those is higher."
                ),
            ] = None,
            verbose: Annotated[
                bool, typer.Option("--verbose", "-v", help="Show workers' logs and tracebacks.")
            ] = False,
        ) -> None:
            options = Options(
                PRESETS[preset.value], storage, weak, student, fractions, seeds, data, gold,
                test_pairs,
                execution_options(
                    train_workers, label_actors, label_actors_max, gpu_type, threads, dtype
                ),
                max_concurrent, address, plan, prices, node_types, max_cost, verbose,
            )  # fmt: skip
            with user_errors(verbose):
                code = run_sweep(name, title, arms_of, options)
            raise typer.Exit(code)

        command.__doc__ = arms_of.__doc__
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command)
        return app

    return decorate


def run_sweep(name: str, title: str, arms_of: Callable[[Grid], list[Arm]], options: Options) -> int:
    """Plan or run a study; returns the exit code."""
    console = Console()
    preset = options.preset
    grid = make_grid(options)
    arms = arms_of(grid)
    store = Store(options.storage)
    resources = replace(preset.resources, **options.execution)
    if resources.gpu_type and not resources.gpus:
        raise DataError(f"--gpu-type: the preset {preset.name} runs without GPUs")
    made = make_plan(arms, store, preset.scale)
    prices = read_prices(options.prices)
    found = costs(
        made, prices, resources.gpu_type, _listed(options.node_types, str, "--node-types")
    )
    if options.plan:
        console.print(plan_table(made))
        console.print(plan_sentence(made), highlight=False)
        console.print(cost_table(found, prices))
        console.print(cost_sentence(found, prices), highlight=False)
    if options.max_cost is not None:
        check_cost(made, found, prices, options.max_cost)
    if options.plan:
        return 0
    store.check_writable()

    # Ray and torch take seconds to import, which plans and help texts do not wait for.
    from weakteach.study.cluster import arms_at_once, shared, start_ray
    from weakteach.study.report import StudyInfo, terminal_table
    from weakteach.study.results import read_results, study_folder
    from weakteach.study.sweep import describe, run_study

    concurrent = options.max_concurrent or preset.max_concurrent
    study: StudyInfo = describe(name, title, grid, store, shlex.join(sys.argv))
    console.print(f"{title}: {len(arms)} arms. {plan_sentence(made)}", highlight=False)
    if made.existing < made.unique:
        start_ray(options.address, concurrent, resources, options.verbose)
        concurrent = arms_at_once(concurrent, resources)
    outcome = run_study(study, arms, shared(store), resources, concurrent, console)

    console.print(terminal_table(read_results(store, name)))
    for arm, failed in outcome.failures.items():
        for role, why in failed.items():
            console.print(f"failed: {arm}, {role}: {why}", markup=False, highlight=False)
    folder = study_folder(store, name)
    console.print(f"{outcome.computed} steps computed.", highlight=False)
    console.print(f"Report: {folder}/report.html", soft_wrap=True, highlight=False)
    if outcome.interrupted:
        console.print("Interrupted. The same command goes on from here.")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if outcome.failures else 0


def execution_options(
    train_workers: int | None,
    label_actors: int | None,
    label_actors_max: int | None,
    gpu_type: str | None,
    threads: int | None,
    dtype: str | None,
) -> dict[str, Any]:
    """Fields of Resources that the user set."""
    given = {
        "train_workers": train_workers,
        "label_actors": label_actors,
        "label_actors_max": label_actors_max,
        "gpu_type": "" if gpu_type == "any" else gpu_type,
        "threads": threads,
        "dtype": None if dtype is None else str(dtype),
    }
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def user_errors(verbose: bool) -> Iterator[None]:
    """Turn errors that a user can mend into one sentence and an exit code."""
    try:
        yield
    except UserError as error:
        if verbose:
            raise
        Console(stderr=True).print(f"Error: {error}", markup=False, highlight=False)
        code = EXIT_FAILED if isinstance(error, StepError) else EXIT_USAGE
        raise typer.Exit(code) from error


def make_grid(options: Options) -> Grid:
    """The grid with names resolved. A plan asks nothing of the hub.

    Raises DataError or ModelError for what cannot be found.
    """
    preset, resolve = options.preset, not options.plan
    if options.test_pairs is not None:
        preset = replace(preset, test_pairs=options.test_pairs)
    weak = preset.weak if options.weak is None else _listed(options.weak, str, "--weak")
    fractions = _listed(options.fractions, Fraction, "--fractions") or preset.fractions
    seeds = _listed(options.seeds, int, "--seeds") or preset.seeds
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise DataError(f"--fractions: {fraction} does not lie between 0 and 1")
    if any(seed < 0 for seed in seeds):
        raise DataError("--seeds: a seed is a whole number from 0 on")
    data = options.data or preset.data
    if data is None:
        raise DataError(
            f"The preset {preset.name} needs your pairs: give --data FILE (a .jsonl, .jsonl.gz, "
            ".csv or .parquet file)"
        )
    return Grid(
        preset=preset,
        source=find_source(data, resolve),
        gold=find_gold(options.gold or preset.gold, data, resolve),
        weak=tuple(find_model(name, resolve) for name in weak),
        student=find_model(options.student or preset.student, resolve),
        fractions=fractions,
        seeds=seeds,
    )


def find_source(data: str, resolve: bool = True) -> Source:
    """The source that ``--data`` names. Raises DataError."""
    if (domain := domain_of(data)) is not None:
        count = data.partition(":")[2]
        if not count.isdigit() or int(count) < 2:
            raise DataError(
                f"--data {data}: write {domain.name}:<number of pairs>, such as {domain.name}:2048"
            )
        return WorldSource(int(count), domain=domain)
    path = Path(data).expanduser()
    if path.is_file() or data.endswith(tuple(FILE_FORMATS)):
        return file_source(path)
    if not resolve and not path.exists():
        return HubSource(data, UNRESOLVED)
    return hub_source(data)


def domain_of(data: str) -> Domain | None:
    """The embedded domain whose pairs ``--data`` asks for."""
    name, colon, _ = data.partition(":")
    return DOMAINS.get(name) if colon else None


def find_gold(name: str | None, data: str, resolve: bool = True) -> Gold | None:
    """The gold that ``--gold`` names; if it names none, the own gold of the data, if it has one.
    Raises DataError or ModelError."""
    domain = domain_of(data)
    if name is None:
        return None if domain is None else WorldGold(domain)
    if name == "none":
        return None
    if name in DOMAINS:
        if domain is not DOMAINS[name]:
            raise DataError(f"--gold {name} scores the pairs of --data {name}:<pairs> alone")
        return WorldGold(domain)
    return RewardModel(policy_of(find_model(name, resolve)))


def _listed(text: str | None, kind: Callable[[str], T], option: str) -> tuple[T, ...]:
    items = [item.strip() for item in (text or "").split(",") if item.strip()]
    try:
        values = [kind(item) for item in items]
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{option} {text}: {error}") from error
    return tuple(dict.fromkeys(values))
