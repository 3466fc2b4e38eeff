"""What a store holds: artifacts, and what attempts at computing them left behind."""

import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from filelock import Timeout
from pyarrow import fs

from weakteach.artifacts.identity import FINGERPRINT_LENGTH
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import LEASE_SECONDS, LEASES, RECORD, Store

# After this time the lease of a dead process has run out.
SURE_SECONDS = LEASE_SECONDS + 1.0
FINGERPRINT = rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}"
NAME = re.compile(
    rf"(?P<whole>{FINGERPRINT})"
    rf"|\.(?P<tried>{FINGERPRINT})(\.[0-9a-f]+)?\.(?P<state>stage|scratch)"
)


class State(StrEnum):
    """What a folder of a step is: an artifact (it holds a record), a half-written one (it holds no
    record yet), or the stage or scratch folder of an attempt; see ``computing.py``."""

    ARTIFACT = "artifact"
    HALF = "half written"
    STAGE = "stage"
    SCRATCH = "scratch"


@dataclass(frozen=True)
class Item:
    """A folder of the store, the bytes in it, and when the last of its files was written."""

    kind: str
    fingerprint: str
    state: State
    path: str
    size: int
    modified: datetime | None

    @property
    def step(self) -> tuple[str, str]:
        return self.kind, self.fingerprint


@dataclass(frozen=True)
class Inventory:
    """The folders of steps in a store. ``size`` is the number of bytes of all files in the store,
    including those that belong to no step."""

    items: tuple[Item, ...]
    size: int


def take_inventory(store: Store) -> Inventory:
    """List the whole store at once. Folders without the name of a step's folder are left out."""
    selector = fs.FileSelector(store.root, allow_not_found=True, recursive=True)
    infos = store.filesystem.get_file_info(selector)
    inside: dict[tuple[str, str], list[fs.FileInfo]] = defaultdict(list)
    size = 0
    for info in infos:
        size += info.size or 0
        parts = info.path[len(store.root) + 1 :].split("/", 2)
        if len(parts) > 1 and (len(parts) > 2 or not info.is_file):
            inside[parts[0], parts[1]].append(info)
    items = []
    for (kind, name), found in inside.items():
        if match := NAME.fullmatch(name):
            items.append(_item(f"{store.root}/{kind}/{name}", kind, match, found))
    return Inventory(tuple(sorted(items, key=lambda item: item.path)), size)


def _item(path: str, kind: str, match: re.Match[str], found: Iterable[fs.FileInfo]) -> Item:
    files = [info for info in found if info.is_file]
    if match["state"]:
        state = State(match["state"])
    else:
        whole = any(info.path == f"{path}/{RECORD}" for info in files)
        state = State.ARTIFACT if whole else State.HALF
    return Item(
        kind=kind,
        fingerprint=match["whole"] or match["tried"],
        state=state,
        path=path,
        size=sum(info.size or 0 for info in files),
        modified=max((info.mtime for info in files if info.mtime), default=None),
    )


def being_made(
    store: Store, inventory: Inventory, wait: float = SURE_SECONDS
) -> set[tuple[str, str]]:
    """Kind and fingerprint of the steps that some process is computing now. These are the steps
    whose leases are still held after the time in which the lease of a dead process runs out; with a
    shorter ``wait``, steps of dead processes may be among them."""
    suspects = {item.step for item in inventory.items if item.state != State.ARTIFACT}
    return _held(store, suspects | _leased(store), wait)


def _leased(store: Store) -> set[tuple[str, str]]:
    """Kind and fingerprint of the steps for which a lease file exists, held or not."""
    files = fs.FileSelector(f"{store.root}/{LEASES}", allow_not_found=True)
    names = [info.base_name.rpartition("-") for info in store.filesystem.get_file_info(files)]
    return {(kind, of) for kind, _, of in names if re.fullmatch(FINGERPRINT, of)}


def _held(
    store: Store, steps: set[tuple[str, str]], wait: float = SURE_SECONDS
) -> set[tuple[str, str]]:
    """The steps whose lease another process still holds after ``wait`` seconds."""

    def is_held(step: tuple[str, str]) -> bool:
        try:
            with store.lease(*step, wait=wait):
                return False
        except Timeout:
            return True

    with ThreadPoolExecutor(32) as threads:
        return {step for step, held in zip(steps, threads.map(is_held, steps), strict=True) if held}


def tidy(store: Store, steps: Iterable[Step]) -> None:
    """Delete what killed processes left behind of the steps whose artifacts exist: lease files
    (taking and releasing a lease removes its file), stage and scratch folders."""
    steps = list(steps)
    existing = store.existing(steps)
    done = {(type(s).__name__, s.fingerprint) for s in steps if s.fingerprint in existing}
    _held(store, _leased(store) & done)
    for item in take_inventory(store).items:
        if item.step in done and item.state != State.ARTIFACT:
            drop(store, item)


def drop(store: Store, item: Item) -> bool:
    """Delete the folder, beginning with its record. Return False and leave it alone if a process is
    computing the step, or if the folder has become an artifact since it was listed."""
    try:
        with store.lease(item.kind, item.fingerprint, wait=0.0):
            if (
                item.state in (State.ARTIFACT, State.HALF)
                and store.filesystem.get_file_info(f"{item.path}/{RECORD}").is_file
            ):
                if item.state == State.HALF:
                    return False
                store.filesystem.delete_file(f"{item.path}/{RECORD}")
            store.delete(item.path)
            return True
    except Timeout:
        return False
