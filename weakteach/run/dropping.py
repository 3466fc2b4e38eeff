"""``--drop-sft``: drops SFT models once every step of the study that reads them is done."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.filesize import decimal

from weakteach.artifacts.dropping import drop_bulk
from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.inventory import State, being_made, take_inventory
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.run.failures import reason
from weakteach.run.garbage import steps_of, study_names
from weakteach.run.progress import Listing


def may_be_read(store: Store, study: str, steps: Sequence[Step]) -> set[str]:
    """The fingerprints of the steps whose bulk must stay. These are the steps that the study's
    missing steps, and those that are being computed, read in bulk; all steps of any other study
    that is not done; and whatever else a process at work on some other step may be reading.

    Raises StorageError for another study whose manifest does not tell its steps.
    """
    inventory = take_inventory(store)
    there = {item.step for item in inventory.items if item.state == State.ARTIFACT}
    busy = being_made(store, inventory, wait=0.0)
    own = {(type(step).__name__, step.fingerprint): step for step in steps}
    staying = {
        one.fingerprint
        for key, step in own.items()
        if key not in there or key in busy
        for one in step.read_in_bulk
    }
    others = [set(steps_of(store, name)) for name in study_names(store) if name != study]
    for reached in others:
        if reached - there:
            staying |= {fingerprint for _, fingerprint in reached}
    for step in busy - own.keys():
        # A study has all that its steps read, so each study with this step has what it reads.
        having = [reached for reached in others if step in reached]
        if not having:
            return {one.fingerprint for one in steps}
        staying |= {fingerprint for _, fingerprint in set.intersection(*having)}
    return staying


@dataclass
class Dropping:
    """Drops the bulk that no step of a study reads any more, now and then as its arms end."""

    store: Store
    study: str
    steps: Sequence[Step]
    console: Console
    _gone: dict[str, int] = field(default_factory=dict)
    _failed: str = ""
    _listing: Listing = field(init=False)

    def __post_init__(self) -> None:
        self._listing = Listing(self.store)

    def an_arm_ended(self) -> None:
        if self._listing.due:
            started = time.monotonic()
            self._drop()
            self._listing.done(started)

    def all_arms_ended(self) -> None:
        """Drop what could not be dropped before, and print what was dropped and what stays."""
        self._drop()
        if self._gone:
            count, size = len(self._gone), decimal(sum(self._gone.values()))
            models = "model was" if count == 1 else "models were"
            self._say(f"{count} SFT {models} dropped, {size}.")
        if kept := self._kept():
            stays = "SFT model stays" if kept == 1 else "SFT models stay"
            self._say(f"{kept} {stays}: what is not done, here or elsewhere, may read them.")

    def _kept(self) -> int:
        """How many models stay."""
        try:
            there = self.store.existing(step for step in self.steps if step.bulk)
            whole = [step for step in self.steps if step.fingerprint in there]
            return len(there) - len(self.store.dropped(whole))
        except (OSError, StorageError) as error:
            self._say(f"How many SFT models stay is not known: {reason(error)}")
            return 0

    def _drop(self) -> None:
        """Drop what nothing may read. A storage that fails must not stop the study: the next arm
        that ends tries it again."""
        try:
            staying = may_be_read(self.store, self.study, self.steps)
            bulky = [s for s in self.steps if s.bulk and s.fingerprint not in staying]
            bulky = [step for step in bulky if step.fingerprint not in self._gone]
            if bulky:
                gone = drop_bulk(
                    self.store, bulky, lambda: may_be_read(self.store, self.study, self.steps)
                )
                self._gone |= {step.fingerprint: size for step, size in gone.items()}
        except (OSError, StorageError) as error:
            if reason(error) != self._failed:
                self._failed = reason(error)
                self._say(f"No SFT model can be dropped now: {self._failed}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)
