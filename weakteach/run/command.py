"""The command line that all sweeps share."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from weakteach.artifacts.errors import StepError, UserError
from weakteach.artifacts.store import Store
from weakteach.models.resources import Attention, Dtype
from weakteach.preferences.pair import DataError
from weakteach.run.plan import experiments_table, make_plan, plan_sentence, plan_table
from weakteach.run.prices import check_cost, cost_sentence, cost_table, costs, rates, read_prices
from weakteach.study.arms import Grid
from weakteach.study.experiments import Experiment, arms_of
from weakteach.study.grids import Choices, listed, make_grid
from weakteach.study.presets import PRESETS, Preset

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
DEFAULT_STORAGE = "runs"


class PresetName(StrEnum):
    """The keys of PRESETS, as choices of an option."""

    EMBEDDED = "embedded"
    LAPTOP = "laptop"
    PAPER = "paper"
    MODERN = "modern"


class TrackerName(StrEnum):
    """The keys of trackers.TRACKERS, as choices of an option."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


@dataclass(frozen=True)
class Options:
    """What the user asked for; None leaves it to the preset."""

    preset: Preset
    storage: str
    choices: Choices
    execution: dict[str, Any] = field(default_factory=dict)
    max_concurrent: int | None = None
    address: str | None = None
    plan: bool = False
    prices: Path | None = None
    node_types: str | None = None
    max_cost: float | None = None
    trackers: tuple[str, ...] = ()
    verbose: bool = False


def sweep(
    name: str, title: str, first: bool = False
) -> Callable[[Callable[[Grid], list[Experiment]]], typer.Typer]:
    """Make a function from a grid to experiments the command of a sweep script.

    The function's docstring is what ``--help`` says. Results go to ``<storage>/studies/<name>/``.
    ``first`` takes the preset's shorter ranges, those of a first look.
    """

    def decorate(experiments_of: Callable[[Grid], list[Experiment]]) -> typer.Typer:
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
            student: Annotated[
                str | None, typer.Option(help="Student of experiments over something else.")
            ] = None,
            students: Annotated[
                str | None, typer.Option(help="Students of experiments over students.")
            ] = None,
            fractions: Annotated[
                str | None, typer.Option(help="Labeled fractions, such as 1/16,1/2.")
            ] = None,
            seeds: Annotated[str | None, typer.Option(help="Seeds, such as 0,1,2.")] = None,
            betas: Annotated[
                str | None, typer.Option(help="Betas of the students' DPO, such as 0.1,0.4.")
            ] = None,
            data: Annotated[
                str | None,
                typer.Option(
                    help="Preference pairs: world:<pairs>, posts:<pairs>, a .jsonl, .jsonl.gz, "
                    ".csv or .parquet file, a datasets folder, or a hub id."
                ),
            ] = None,
            gold: Annotated[
                str | None,
                typer.Option(
                    help="Gold rewards, the main one first: own (an embedded domain's), reward "
                    "models, trained:<model> (trained on pairs set aside), or none. Trained ones "
                    "are left out of the default for your own --data."
                ),
            ] = None,
            test_pairs: Annotated[
                int | None, typer.Option(min=2, help="Pairs held out as the test part.")
            ] = None,
            set_aside_pairs: Annotated[
                int | None, typer.Option(min=2, help="Pairs that golds trained:… learn from.")
            ] = None,
            endpoint: Annotated[
                str | None, typer.Option(help="OpenAI-compatible server of prompted models.")
            ] = None,
            annotator_model: Annotated[
                str | None, typer.Option(help="Model of the endpoint that labels pairs.")
            ] = None,
            judge_model: Annotated[
                str | None,
                typer.Option(help="Model of the endpoint that judges; without it a gold draws."),
            ] = None,
            endpoint_key: Annotated[
                str | None,
                typer.Option(help="Environment variable that holds the endpoint's key."),
            ] = None,
            train_workers: Annotated[
                int | None,
                typer.Option(min=0, help="Data-parallel training workers; 0 trains in the trial."),
            ] = None,
            label_actors: Annotated[
                int | None,
                typer.Option(min=0, help="Actors that label; 0 labels in Ray tasks."),
            ] = None,
            gpus: Annotated[
                float | None,
                typer.Option(min=0, help="GPUs of each worker and actor; 0.5 shares one."),
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
                Dtype | None,
                typer.Option(help="Of computations; trained weights stay in float32."),
            ] = None,
            attention: Annotated[
                Attention | None,
                typer.Option(
                    help="Of log-probabilities; flex is meant for CUDA, and slow on a CPU."
                ),
            ] = None,
            checkpoint_steps: Annotated[
                int | None,
                typer.Option(min=1, help="Updates from one checkpoint of a training to the next."),
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
            tracker: Annotated[
                list[TrackerName] | None,
                typer.Option(help="Keep a run per arm there, too; repeatable."),
            ] = None,
            verbose: Annotated[
                bool, typer.Option("--verbose", "-v", help="Show workers' logs and tracebacks.")
            ] = False,
        ) -> None:
            chat = {} if endpoint_key is None else {"key_variable": endpoint_key}
            choices = Choices(
                weak, student, students, fractions, seeds, betas, data, gold, test_pairs,
                set_aside_pairs, endpoint, annotator_model, judge_model, chat,
            )  # fmt: skip
            options = Options(
                PRESETS[preset.value], storage, choices,
                execution_options(
                    train_workers, label_actors, label_actors_max, gpus, gpu_type, threads, dtype,
                    attention, checkpoint_steps,
                ),
                max_concurrent, address, plan, prices, node_types, max_cost,
                tuple(map(str, tracker or ())), verbose,
            )  # fmt: skip
            with user_errors(verbose):
                code = run_sweep(name, title, experiments_of, options, first)
            raise typer.Exit(code)

        command.__doc__ = experiments_of.__doc__
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command)
        return app

    return decorate


def run_sweep(
    name: str,
    title: str,
    experiments_of: Callable[[Grid], list[Experiment]],
    options: Options,
    first: bool = False,
) -> int:
    """Plan or run a study; returns the exit code."""
    console = Console()
    preset = options.preset
    ranges = preset.first if first else preset.ranges
    grid = make_grid(preset, ranges, options.choices, resolve=not options.plan)
    experiments = experiments_of(grid)
    arms = arms_of(experiments)
    store = Store(options.storage)
    resources = replace(preset.resources, **options.execution)
    if resources.gpu_type and not resources.gpus:
        raise DataError(f"--gpu-type: the preset {preset.name} runs without GPUs")
    made = make_plan(arms, store, preset.scale)
    prices = read_prices(options.prices)
    found = costs(made, prices, resources.gpu_type, listed(options.node_types, str, "--node-types"))
    if options.plan:
        if len(experiments) > 1:
            console.print(experiments_table(experiments, store))
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
    from weakteach.report.page import terminal_tables
    from weakteach.run.cluster import arms_at_once, shared, start_ray
    from weakteach.run.sweep import describe, run_study
    from weakteach.study.manifest import study_folder

    concurrent = options.max_concurrent or preset.max_concurrent
    study = describe(name, title, grid, store, shlex.join(sys.argv))
    console.print(f"{title}: {len(arms)} arms. {plan_sentence(made)}", highlight=False)
    if made.existing < made.unique:
        start_ray(options.address, concurrent, resources, options.verbose)
        concurrent = arms_at_once(concurrent, resources)
    paid = rates(found, prices) if options.node_types else ()
    outcome = run_study(
        study, experiments, shared(store), resources, concurrent, console, paid, options.trackers
    )

    for table in terminal_tables(outcome.findings):
        console.print(table)
    for arm, roles, why in outcome.findings.failures:
        console.print(f"failed: {arm}, {roles}: {why}", markup=False, highlight=False)
    folder = study_folder(store, name)
    console.print(f"{outcome.computed} steps computed.", highlight=False)
    console.print(f"Report: {folder}/report.html", soft_wrap=True, highlight=False)
    if outcome.interrupted:
        console.print("Interrupted. The same command goes on from here.")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if outcome.findings.failures else 0


def execution_options(
    train_workers: int | None,
    label_actors: int | None,
    label_actors_max: int | None,
    gpus: float | None,
    gpu_type: str | None,
    threads: int | None,
    dtype: Dtype | None,
    attention: Attention | None,
    checkpoint_steps: int | None,
) -> dict[str, Any]:
    """Fields of Resources that the user set."""
    given = {
        "train_workers": train_workers,
        "label_actors": label_actors,
        "label_actors_max": label_actors_max,
        "gpus": gpus,
        "gpu_type": "" if gpu_type == "any" else gpu_type,
        "threads": threads,
        "dtype": dtype,
        "attention": attention,
        "checkpoint_steps": checkpoint_steps,
    }
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def user_errors(verbose: bool) -> Iterator[None]:
    """Turn errors that a user can mend into one sentence and an exit code.

    Those of a disk or a bucket come as OSError from wherever it is read or written.
    """
    try:
        yield
    except (UserError, OSError) as error:
        if verbose:
            raise
        said = UserError(f"Error: {error}")  # in one line
        Console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
        failed = isinstance(error, StepError | OSError)
        raise typer.Exit(EXIT_FAILED if failed else EXIT_USAGE) from error
