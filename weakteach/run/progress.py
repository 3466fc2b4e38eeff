"""How far a study is: the steps that exist, and a bar that follows them."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store

LOGGER = logging.getLogger(__name__)
# A step that tells nothing new for so long has much to do, or waits: its silence is shown.
QUIET_SECONDS = 60.0
WAITS = "waits for a device"


class Listing:
    """Tells when a storage may be listed again: rarely, so that it takes a small share of the time.

    A bucket answers and charges by the request, so it is asked less often than a file system.
    """

    SECONDS, SECONDS_OF_A_BUCKET, SHARE = 5.0, 60.0, 0.05

    def __init__(self, store: Store) -> None:
        self._seconds = self.SECONDS if store.is_local else self.SECONDS_OF_A_BUCKET
        self._next = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def done(self, started: float) -> None:
        """Note that the listing that began at ``started`` (monotonic clock) has ended or failed."""
        now = time.monotonic()
        self._next = now + max(self._seconds, (now - started) / self.SHARE)


class Existing:
    """Knows which of a study's steps exist: those that existed at first, those that trials report
    and, as another study may compute some too, those that are found by a listing now and then."""

    def __init__(self, store: Store, steps: list[Step], existing: set[str]) -> None:
        self._store, self._steps, self._existing = store, steps, set(existing)
        self._listing = Listing(store)
        self._listing.done(time.monotonic())

    def add(self, fingerprint: str) -> None:
        self._existing.add(fingerprint)

    def look(self) -> set[str]:
        """Their fingerprints. A storage that does not answer is asked again by a later call."""
        if self._listing.due:
            started = time.monotonic()
            try:
                self._existing |= self._store.existing(self._steps)
            except OSError as error:
                LOGGER.warning("%s cannot be listed now: %s", self._store.url, error)
            self._listing.done(started)
        return set(self._existing)


def doing_of(step: Step, done: int, total: int, waits: bool) -> str:
    """What a trial that computes the step says it is doing, such as ``Dpo 16/64``."""
    parts = [type(step).__name__, f"{done}/{total}" if total else "", WAITS if waits else ""]
    return " ".join(part for part in parts if part)


class Doing:
    """What trials say they are doing, and since when each has said the same."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def say(self, trial: str, text: str) -> None:
        if text != self._said.get(trial, ("", 0.0))[0]:
            self._said[trial] = text, time.monotonic()

    def __str__(self) -> str:
        now = time.monotonic()
        said = [(text, now - since) for text, since in list(self._said.values()) if text]
        return ", ".join(
            text if quiet < QUIET_SECONDS else f"{text} (nothing new for {quiet / 60:.0f} min)"
            for text, quiet in said
        )


class Following:
    """A progress bar of the study's steps, kept up to date while the body of a ``with`` runs, with
    what the trials are doing beside it. An error in looking up the steps ends neither the body nor
    the bar."""

    def __init__(
        self,
        console: Console,
        look: Callable[[], int],
        doing: Doing,
        steps: int,
        every: float = 1.0,
    ) -> None:
        self._progress = Progress(
            TextColumn("steps"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._look, self._doing, self._every = look, doing, every
        self._task = self._progress.add_task("", total=steps)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._progress.start()
        self._thread.start()

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._progress.stop()

    def _follow(self) -> None:
        self._show(str(self._doing))
        while not self._stop.wait(self._every):
            self._show(str(self._doing))
        self._show("")

    def _show(self, doing: str) -> None:
        try:
            self._progress.update(self._task, completed=self._look(), description=doing)
        except Exception:  # the bar must not end before the study
            LOGGER.exception("progress")
