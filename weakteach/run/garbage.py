"""What no study needs any more: artifacts that none reaches, and leftovers of tries that ended."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pyarrow import fs
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from weakteach.artifacts.errors import StorageError, printable
from weakteach.artifacts.inventory import (
    FINGERPRINT,
    SURE_SECONDS,
    Item,
    State,
    being_made,
    drop,
    take_inventory,
)
from weakteach.artifacts.store import Store
from weakteach.study.manifest import MANIFEST, study_folder

# What a label tells, in this order: the model, what it learned from, and two parameters.
TRAITS = ("model", "labels", "fraction", "seed")


@dataclass(frozen=True)
class Garbage:
    """What can be dropped (``items``, and the studies to be ``forgotten``) and what stays: names of
    ``studies``, the number of artifacts (``kept``) and their bytes."""

    items: tuple[Item, ...]
    studies: tuple[str, ...]
    forgotten: tuple[str, ...]
    kept: int
    kept_size: int

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


def find_garbage(store: Store, forget: Collection[str] = (), wait: float = SURE_SECONDS) -> Garbage:
    """What no study that stays reaches and no process is at work on; ``wait`` is that of
    ``being_made``.

    The scratch of a step that such a study lacks stays: submitted again, the study goes on from it.
    Raises StorageError if a study to ``forget`` does not exist, if the steps of a study that stays
    cannot be told, and while a step is being made that none of these studies has: nobody
    knows what it reads.
    """
    names = study_names(store)
    if unknown := sorted(set(forget) - set(names)):
        there = ", ".join(names) or "none"
        raise StorageError(f"There is no study {unknown[0]} in {store.url}; there are: {there}")
    studies = [name for name in names if name not in forget]
    reached = _reached(store, studies)
    inventory = take_inventory(store)
    busy = being_made(store, inventory, wait)
    if others := sorted(busy - reached):
        kind, fingerprint = others[0]
        raise StorageError(
            f"{kind}/{fingerprint} is being made, which no study that stays has, so what it reads "
            "cannot be told: wait until it is done"
        )
    whole = {item.step for item in inventory.items if item.state == State.ARTIFACT}

    def stays(item: Item) -> bool:
        if item.state == State.ARTIFACT:
            return item.step in reached
        resumable = item.state == State.SCRATCH and item.step in reached - whole
        return resumable or item.step in busy

    items = tuple(item for item in inventory.items if not stays(item))
    kept = [i for i in inventory.items if i.state == State.ARTIFACT and i.step in reached]
    sizes = sum(item.size for item in kept)
    return Garbage(items, tuple(studies), tuple(forget), len(kept), sizes)


def drop_garbage(store: Store, garbage: Garbage) -> list[Item]:
    """Forget the studies and delete the items. Return the items that were deleted. Those stay that
    are reached by a study that began after they were listed, or that a process is at work on."""
    for study in garbage.forgotten:
        store.delete(study_folder(store, study))
        store.delete(f"{store.root}/.tune/{study}")
    reached = _reached(store, study_names(store))
    stale = [
        item for item in garbage.items if item.state != State.ARTIFACT or item.step not in reached
    ]
    return [item for item in stale if drop(store, item)]


def study_names(store: Store) -> list[str]:
    folder = fs.FileSelector(f"{store.root}/studies", allow_not_found=True)
    return sorted(i.base_name for i in store.filesystem.get_file_info(folder) if not i.is_file)


def _reached(store: Store, studies: Collection[str]) -> set[tuple[str, str]]:
    """Kind and fingerprint of all steps of the studies. A manifest names every step that its
    measures read, and a fingerprint fixes what a step reads, so nothing lies beyond these."""
    return {step for study in studies for step in steps_of(store, study)}


def steps_of(store: Store, study: str) -> Iterator[tuple[str, str]]:
    """Kind and fingerprint of a study's steps. Raises StorageError."""
    path = f"{study_folder(store, study)}/{MANIFEST}"
    try:
        with store.filesystem.open_input_file(path) as file:
            steps = json.loads(file.read())["steps"]
        yield from [(str(kind), str(fingerprint)) for kind, fingerprint in steps]
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise StorageError(
            f"{path} does not tell the study's steps ({type(error).__name__}), so nobody knows "
            f"what it needs: submit the study again, or forget it with --drop {study}"
        ) from error


def garbage_table(store: Store, garbage: Garbage) -> Table:
    """One row per folder to drop, the largest of a kind of step first."""
    now = datetime.now(UTC)
    descriptions = Descriptions(store)
    table = Table(title=plain(f"To drop from {store.url}"), title_justify="left")
    for heading in ("step", "label", "state", "size", "age"):
        table.add_column(heading, justify="right" if heading in ("size", "age") else "left")
    for item in sorted(garbage.items, key=lambda item: (item.kind, -item.size)):
        label = f"{item.fingerprint[:8]} {descriptions.of(*item.step)}"
        age = age_text(now - item.modified) if item.modified else ""
        table.add_row(plain(item.kind), plain(label), item.state, decimal(item.size), age)
    table.add_section()
    table.add_row("all", str(len(garbage.items)), "", decimal(garbage.size), "")
    return table


def plain(text: str) -> Text:
    """The text without markup or control characters: what a store holds may come from anyone."""
    return Text(printable(text))


def age_text(age: timedelta) -> str:
    for unit, name in ((timedelta(days=1), "d"), (timedelta(hours=1), "h")):
        if age >= unit:
            return f"{age // unit} {name}"
    return f"{max(age, timedelta(0)) // timedelta(minutes=1)} min"


@dataclass(frozen=True)
class Descriptions:
    """Describes artifacts in a few words, by their own parameters or else those of the nearest
    artifacts that they were made of."""

    store: Store
    _traits: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def of(self, kind: str, fingerprint: str) -> str:
        """Such as ``opt-45k, on WeakLabels, fraction 0.25, seed 0``; empty without an artifact."""
        traits = self._of(kind, fingerprint)
        return ", ".join(traits[name] for name in TRAITS if name in traits)

    def _of(self, kind: str, fingerprint: str) -> dict[str, str]:
        key = kind, fingerprint
        if key not in self._traits:
            self._traits[key] = {}  # a forged record might name itself among its inputs
            try:
                self._traits[key] = self._read(kind, fingerprint)
            except (StorageError, ValueError, LookupError, TypeError, AttributeError):
                self._traits[key] = {"model": "unreadable record"}
        return self._traits[key]

    def _read(self, kind: str, fingerprint: str) -> dict[str, str]:
        named = kind.isidentifier() and re.fullmatch(FINGERPRINT, fingerprint)
        record = self.store.record_of(kind, fingerprint) if named else None
        if record is None:
            return {}
        traits: dict[str, str] = {}
        for parent in reversed(record["inputs"]):
            traits |= self._of(parent["step"], parent["fingerprint"])
        for name, value in record["parameters"].items():
            if name == "labels":
                traits[name] = f"on {value['step']}"
            elif name in TRAITS:
                traits[name] = f"{name} {value['fraction'] if isinstance(value, dict) else value}"
            elif isinstance(value, dict) and value.get("class") == "Model":
                traits["model"] = str(value["label"])
        return traits
