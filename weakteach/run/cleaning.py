"""``weakteach gc``: drop what no study needs."""

import os
from contextlib import nullcontext

from rich.console import Console
from rich.filesize import decimal

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.run.garbage import drop_garbage, find_garbage, garbage_table
from weakteach.run.options import DEFAULT_STORAGE, Address, Storage, Verbose
from weakteach.run.terminal import EXIT_FAILED, terminal


def gc(
    *,
    drop: tuple[str, ...] = (),
    yes: bool = False,
    dry_run: bool = False,
    idle: bool = False,
    storage: Storage = DEFAULT_STORAGE,
    address: Address = None,
    verbose: Verbose = False,
) -> int:
    """Drop what no study needs: artifacts that none reaches, leftovers of tries that ended.

    What a study needs to go on stays, and so does what is being made. Studies to
    forget lose their reports, and the artifacts that no other study has.

    Parameters
    ----------
    drop
        A study to forget, with its report; several with commas.
    yes
        Do not ask.
    dry_run
        Show, and drop nothing.
    idle
        Nothing works on this object store: no cluster to ask.
    storage
        Where artifacts lie: a folder or a URL.
    address
        Ray cluster that works on the storage, if that is a bucket.
    verbose
        Show logs and tracebacks.
    """
    console = terminal()
    store = _with_leases(Store(storage), idle, address, verbose)
    garbage = find_garbage(store, drop)
    stays = f"{garbage.kept} artifacts of {len(garbage.studies)} studies stay"
    stays += f" ({decimal(garbage.kept_size)})."
    if not garbage.items and not garbage.forgotten:
        console.print(f"Nothing to drop: {stays}")
        return 0
    console.print(garbage_table(store, garbage))
    for study in garbage.forgotten:
        console.print(f"To forget: study {study}")
    console.print(stays)
    if dry_run:
        return 0
    if not yes and not _agrees(console):
        console.print("Nothing was dropped.")
        return EXIT_FAILED
    gone = drop_garbage(store, garbage)
    size = decimal(sum(item.size for item in gone))
    console.print(f"{len(gone)} of {len(garbage.items)} dropped, {size}.")
    return 0


def _agrees(console: Console) -> bool:
    """Ask whether to drop. Where nobody can answer, the answer is no."""
    try:
        return console.input("Drop them? [y/N]: ").strip().lower() in ("y", "yes")
    except EOFError:
        console.print()
        return False


def _with_leases(store: Store, idle: bool, address: str | None, verbose: bool) -> Store:
    """The store with leases, which tell which steps are being made. Raises StorageError if nothing
    can tell that."""
    if store.is_local:
        return store
    if idle:
        return Store(store.url, lambda key, wait: nullcontext())
    if not (address or os.environ.get("RAY_ADDRESS")):
        raise StorageError(
            f"{store.url}: a bucket does not tell what is being made; give the cluster "
            "that works on it with --address, or say with --idle that none does"
        )
    from weakteach.run.cluster import shared, start_ray  # slow to import

    start_ray(address, 1, Resources(), verbose)
    return shared(store)
