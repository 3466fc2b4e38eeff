"""Commands that look at what a storage holds: ``plan``, ``report`` and ``show``."""

import json
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.tree import Tree

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.store import DROPPED, Store
from weakteach.run.options import DEFAULT_STORAGE, Storage, Verbose
from weakteach.run.terminal import terminal


def plan(study: str, *, storage: Storage = DEFAULT_STORAGE, verbose: Verbose = False) -> None:
    """How far a study is: its unique steps, those that exist, and what they took.

    What a study that never ran would compute is told by its script: --plan.

    Parameters
    ----------
    study
        A study's name, such as size_grid.
    storage
        Where artifacts lie: a folder or a URL.
    verbose
        Show logs and tracebacks.
    """
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
    terminal().print(table)


def report(study: str, *, storage: Storage = DEFAULT_STORAGE, verbose: Verbose = False) -> None:
    """Print a study's results and write its report and figures anew.

    Parameters
    ----------
    study
        A study's name, such as size_grid.
    storage
        Where artifacts lie: a folder or a URL.
    verbose
        Show logs and tracebacks.
    """
    from weakteach.study.manifest import read_manifest, study_folder

    console, store = terminal(), Store(storage)
    manifest = read_manifest(store, study)

    # matplotlib and scipy: slow to import, and a study's name may be wrong
    from weakteach.report.publish import publish_results
    from weakteach.report.terminal import terminal_tables

    findings = publish_results(store, manifest, final=True)
    for table in terminal_tables(findings):
        console.print(table)
    console.print(f"Report: {study_folder(store, study)}/report.html", soft_wrap=True)


def show(fingerprint: str, *, storage: Storage = DEFAULT_STORAGE, verbose: Verbose = False) -> None:
    """An artifact's record, and the artifacts that it was made of.

    Parameters
    ----------
    fingerprint
        A fingerprint, or the start of one.
    storage
        Where artifacts lie: a folder or a URL.
    verbose
        Show logs and tracebacks.
    """
    console, store = terminal(), Store(storage)
    record = store.find(fingerprint)
    if record is None:
        raise StorageError(f"{store.url} holds no artifact {fingerprint}")
    mark = f"{store.place(record['step'], record['fingerprint'])}/{DROPPED}"
    if store.filesystem.get_file_info(mark).is_file:
        console.print("Its weights were dropped; a step that reads them has them computed anew.")
    tree = lineage(store, record, Tree(title_of(record)))
    console.print_json(json.dumps(record), ensure_ascii=True)  # it may hold lone surrogates
    console.print(tree)


def lineage(store: Store, record: dict[str, Any], tree: Tree, above: tuple[str, ...] = ()) -> Tree:
    """Add the record's inputs to the tree, and below each input its own inputs. Return the tree.

    Raises StorageError if an input is among the records ``above`` it: no study writes such records.
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
