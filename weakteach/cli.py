"""The ``weakteach`` command."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.tree import Tree

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Progress as Told
from weakteach.artifacts.store import Store
from weakteach.models.spec import find_model
from weakteach.models.tiny.family import DOCUMENTS, tiny_model
from weakteach.preferences.pair import DataError
from weakteach.preferences.sources import WorldSource, file_source
from weakteach.run.command import DEFAULT_STORAGE, user_errors
from weakteach.run.export import export
from weakteach.steps.data import HeldOut, Pairs
from weakteach.steps.evaluation import Agreement
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.study.arms import policy_of, tokenizers_of
from weakteach.study.presets import LAPTOP
from weakteach.worlds.domains import DOMAINS

HELP = "Can a weak language model teach a strong one? Studies run from the scripts in sweeps/."
LARGEST_HELD_OUT = 500

app = typer.Typer(
    help=HELP, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)
StorageOption = Annotated[
    str, typer.Option(envvar="WEAKTEACH_STORAGE", help="Where artifacts lie: a folder or a URL.")
]


class DomainName(StrEnum):
    """The keys of DOMAINS, as choices of an option."""

    WORLD = "world"
    POSTS = "posts"


Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show logs and tracebacks.")]


@app.command()
def label(
    labeled: Annotated[Path, typer.Option(help="Pairs with human choices; teaches the teacher.")],
    unlabeled: Annotated[Path, typer.Option(help="Pairs to label.")],
    out: Annotated[Path, typer.Option(help="Folder for labels, preferences and quarantine.")],
    teacher: Annotated[
        str, typer.Option(help="Embedded model, smollm2-135m, a folder, .gguf file or hub id.")
    ] = "opt-230k",
    storage: StorageOption = DEFAULT_STORAGE,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    max_tokens: Annotated[int, typer.Option(min=8, help="Longer pairs go to quarantine.")] = 512,
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of labeled pairs that test the teacher.")
    ] = 0.2,
    address: Annotated[str | None, typer.Option(help="Ray cluster to run on.")] = None,
    verbose: Verbose = False,
) -> None:
    """Label pairs with a teacher trained on a few human choices.

    Files are .jsonl, .jsonl.gz, .csv or .parquet. Labeled rows hold prompt, chosen and rejected
    (or chosen and rejected transcripts alone, or lists of messages); unlabeled rows may hold
    prompt, response_1 and response_2 instead. Human choices in the unlabeled file are never shown
    to the teacher; they give the printed agreement alone.
    """
    console = Console()
    with user_errors(verbose):
        from weakteach.run.cluster import shared, start_ray  # slow to import

        model = find_model(teacher)
        tokenizers = tokenizers_of(model)
        resources = LAPTOP.resources
        store = shared(Store(storage))
        store.check_writable()
        few = Pairs(file_source(labeled), tokenizers, max_tokens)
        many = Pairs(file_source(unlabeled), tokenizers, max_tokens)
        start_ray(address, 1, resources, verbose)

        def obtain(text: str, step: Step) -> dict[str, Any]:
            with following(console, text) as progress:

                def told(step: Step, done: int, total: int, tokens: int = 0) -> None:
                    progress(done, total, tokens)

                return store.obtain(step, resources, told)["facts"]

        few_facts = obtain("reading labeled pairs", few)
        many_facts = obtain("reading unlabeled pairs", many)
        for name, facts in ((labeled.name, few_facts), (unlabeled.name, many_facts)):
            counts = f"{facts['rows']} rows = {facts['pairs']} pairs + {facts['quarantined']}"
            console.print(f"{name}: {counts} in quarantine", highlight=False)
        if not few_facts["choices"]:
            raise DataError(f"{labeled}: no row says which response a human chose")

        recipes = LAPTOP.data.teacher_recipes(str(model))
        test_pairs = max(1, min(LARGEST_HELD_OUT, int(held_out * few_facts["pairs"])))
        parts = HeldOut(few, test_pairs)
        choices = HumanLabels(parts.train)
        sft = Sft(policy_of(model, LAPTOP.pretraining_documents), choices, recipes.sft, seed)
        dpo = Dpo(sft, choices, recipes.dpo, seed)
        obtain("training the teacher (SFT)", sft)
        obtain("training the teacher (DPO)", dpo)
        weak = WeakLabels(dpo, many.all)
        accuracy = obtain("testing the teacher", Agreement(WeakLabels(dpo, parts.test)))
        weak_facts = obtain("labeling", weak)
        if weak_facts["quarantined"]:
            count = weak_facts["quarantined"]
            console.print(f"{unlabeled.name}: {count} pairs could not be labeled", highlight=False)
        report_share(console, "Teacher accuracy on held-out human choices", accuracy)
        if many_facts["choices"]:
            report_share(
                console,
                "Agreement with the human choices of the unlabeled file",
                obtain("comparing", Agreement(weak)),
            )
        export(store, few, many, weak, out)
    console.print(f"Labels, preferences and quarantine: {out}", soft_wrap=True, highlight=False)


@contextmanager
def following(console: Console, text: str) -> Iterator[Told]:
    """A line with the time a step takes; with rows, rates and time left once it tells them.

    Rates are those of this run: what an earlier one left done counts for none.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(text, total=None, rate="")
        first: tuple[int, float] | None = None

        def show(done: int, total: int, tokens: int = 0) -> None:
            nonlocal first
            now = time.monotonic()
            first = first or (done, now)
            seconds = now - first[1]
            rate = f"{done:,}/{total:,}"
            if seconds:
                rate += f", {(done - first[0]) / seconds:,.1f}/s"
            if seconds and tokens:
                rate += f", {tokens / seconds:,.0f} tokens/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show
        bar.update(task, total=1, completed=1)


def report_share(console: Console, what: str, facts: dict[str, Any]) -> None:
    """Print a share of agreeing pairs with its interval, and whether it could be chance."""
    from weakteach.statistics.estimate import wilson_interval  # scipy: slow to import

    low, high = wilson_interval(facts["agreed"], facts["compared"])
    share = facts["agreed"] / facts["compared"]
    verdict = "" if low > 0.5 else " — not distinguishable from chance: do not use these labels"
    console.print(
        f"{what}: {share:.1%} (95 % interval {low:.1%} to {high:.1%}, {facts['compared']} pairs)"
        f"{verdict}",
        highlight=False,
    )


@app.command()
def plan(
    study: Annotated[str, typer.Argument(help="A study's name, such as size_grid.")],
    storage: StorageOption = DEFAULT_STORAGE,
    verbose: Verbose = False,
) -> None:
    """How far a study is: its unique steps, those that exist, and what they took.

    What a study that never ran would compute is told by its script: --plan.
    """
    with user_errors(verbose):
        from weakteach.study.manifest import read_manifest  # matplotlib: slow to import

        store = Store(storage)
        steps = read_manifest(store, study).steps
        table = Table(title=study, title_justify="left")
        for heading in ("step", "unique", "exist", "device-hours so far"):
            table.add_column(heading, justify="left" if heading == "step" else "right")
        for kind in dict.fromkeys(name for name, _ in steps):
            mine = [fingerprint for name, fingerprint in steps if name == kind]
            found = (store.record_of(kind, fingerprint) for fingerprint in mine)
            records = [record for record in found if record]
            hours = sum(record["device_seconds"] for record in records) / 3600
            table.add_row(kind, str(len(mine)), str(len(records)), f"{hours:.3f}")
    Console().print(table)


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="A study's name, such as size_grid.")],
    storage: StorageOption = DEFAULT_STORAGE,
    verbose: Verbose = False,
) -> None:
    """Print a study's results and write its report and figures anew."""
    console = Console()
    with user_errors(verbose):
        from weakteach.report.publish import publish_results
        from weakteach.report.terminal import terminal_tables
        from weakteach.study.manifest import read_manifest, study_folder

        store = Store(storage)
        findings = publish_results(store, read_manifest(store, study), final=True)
    for table in terminal_tables(findings):
        console.print(table)
    console.print(f"Report: {study_folder(store, study)}/report.html", soft_wrap=True)


@app.command()
def show(
    fingerprint: Annotated[str, typer.Argument(help="A fingerprint, or the start of one.")],
    storage: StorageOption = DEFAULT_STORAGE,
    verbose: Verbose = False,
) -> None:
    """An artifact's record, and the artifacts that it was made of."""
    console = Console()
    with user_errors(verbose):
        store = Store(storage)
        record = store.find(fingerprint)
        if record is None:
            raise StorageError(f"{store.url} holds no artifact {fingerprint}")
        tree = lineage(store, record, Tree(title_of(record)))
    console.print_json(json.dumps(record), ensure_ascii=True)  # it may hold lone surrogates
    console.print(tree)


def lineage(store: Store, record: dict[str, Any], tree: Tree, above: tuple[str, ...] = ()) -> Tree:
    """The record's inputs below it, and theirs below them.

    Raises StorageError if one of them is among those ``above`` it, which no study writes.
    """
    above = (*above, record["fingerprint"])
    for parent in record["inputs"]:
        if parent["fingerprint"] in above:
            raise StorageError(f"The record of {above[-1]} is damaged: its inputs go in a circle")
        found = store.record_of(parent["step"], parent["fingerprint"])
        if found is None:
            tree.add(f"{parent['step']}/{parent['fingerprint']} (gone)")
        else:
            lineage(store, found, tree.add(title_of(found)), above)
    return tree


def title_of(record: dict[str, Any]) -> str:
    started = datetime.fromtimestamp(record["started"]).isoformat(" ", "seconds")
    return f"{record['step']}/{record['fingerprint']}  {started}  {record['seconds']:.1f} s"


@app.command()
def gc(
    drop: Annotated[
        list[str] | None, typer.Option(help="A study to forget, with its report; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, and drop nothing.")] = False,
    idle: Annotated[
        bool, typer.Option("--idle", help="Nothing works on this object store: no cluster to ask.")
    ] = False,
    storage: StorageOption = DEFAULT_STORAGE,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster that works on the storage, if that is a bucket.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Drop what no study needs: artifacts that none reaches, leftovers of tries that ended.

    What a study needs to go on stays, and so does what is being made. Studies to forget lose their
    reports, and the artifacts that no other study has.
    """
    console = Console()
    with user_errors(verbose):
        from weakteach.run.garbage import drop_garbage, find_garbage, garbage_table

        store = Store(storage)
        if not store.is_local and idle:
            store = Store(storage, lambda key, wait: nullcontext())
        elif not store.is_local:
            if not (address or os.environ.get("RAY_ADDRESS")):
                raise StorageError(
                    f"{store.url}: a bucket does not tell what is being made; give the cluster "
                    "that works on it with --address, or say with --idle that none does"
                )
            from weakteach.run.cluster import shared, start_ray  # slow to import

            start_ray(address, 1, LAPTOP.resources, verbose)
            store = shared(store)
        garbage = find_garbage(store, drop or ())
        stays = f"{garbage.kept} artifacts of {len(garbage.studies)} studies stay"
        stays += f" ({decimal(garbage.kept_size)})."
        if not garbage.items and not garbage.forgotten:
            console.print(f"Nothing to drop: {stays}", highlight=False)
            return
        console.print(garbage_table(store, garbage))
        for study in garbage.forgotten:
            console.print(f"To forget: study {study}", highlight=False)
        console.print(stays, highlight=False)
        if dry_run:
            return
        if not yes:
            typer.confirm("Drop them?", abort=True)
        gone = drop_garbage(store, garbage)
    size = decimal(sum(item.size for item in gone))
    console.print(f"{len(gone)} of {len(garbage.items)} dropped, {size}.", highlight=False)


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="An embedded model, such as opt-4m or llama-230k.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; must be empty or new.")],
    documents: Annotated[int, typer.Option(min=16, help="Documents, each read once.")] = DOCUMENTS,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    verbose: Verbose = False,
) -> None:
    """Pretrain an embedded model on documents of the embedded domains."""
    console = Console()
    with user_errors(verbose):
        try:
            tiny_model(name)
        except ValueError as error:
            raise DataError(str(error)) from error
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StorageError(f"{out} is not empty: give a new folder with --out")
        from weakteach.models.process import prepare_process
        from weakteach.models.tiny import pretraining  # slow to import

        # Sums over threads differ in their last bits; one thread gives the shipped weights.
        prepare_process(threads=1)
        with following(console, f"pretraining {name}") as progress:
            pretraining.pretrain(
                name, out, documents, seed, lambda step, steps, loss: progress(step, steps)
            )
    console.print(f"Model: {out}", soft_wrap=True)


@app.command()
def world(
    pairs: Annotated[int, typer.Argument(min=1, help="How many pairs.")],
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.")],
    domain: Annotated[
        DomainName, typer.Option(help="Requests and answers, or posts and summaries.")
    ] = DomainName.WORLD,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    start: Annotated[int, typer.Option(min=0, help="Index of the first pair.")] = 0,
    choices: Annotated[
        bool, typer.Option(help="Write chosen and rejected, or response_1 and response_2.")
    ] = True,
    verbose: Verbose = False,
) -> None:
    """Write pairs of an embedded domain as JSONL."""
    with user_errors(verbose):
        source = WorldSource(start + pairs, seed, domain=DOMAINS[domain])
        try:
            with out.open("w", encoding="utf-8") as file:
                for row in islice(source.read(), start, None):
                    chosen, rejected = row.first, row.second
                    if choices and row.preferred == 2:
                        chosen, rejected = rejected, chosen
                    names = ("chosen", "rejected") if choices else ("response_1", "response_2")
                    record = dict(zip(names, (chosen, rejected), strict=True))
                    file.write(json.dumps({"prompt": row.prompt, **record}) + "\n")
        except OSError as error:
            raise StorageError(f"{out} cannot be written: {error.strerror}") from error
    Console().print(f"{pairs} pairs: {out}", soft_wrap=True)


if __name__ == "__main__":
    app()
