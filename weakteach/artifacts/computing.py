"""Computing each artifact once, however many processes want it.

<storage>/<StepName>/.<fingerprint>.<try>.stage/…   what an attempt writes; the next deletes it
<storage>/<StepName>/.<fingerprint>.scratch/…       what the next attempt goes on from if this
                                                    one is killed: checkpoints, shards
"""

import json
import math
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout
from pyarrow import fs

from weakteach.artifacts.copies import cache_folder
from weakteach.artifacts.errors import StepError, StorageError, UserError, passes
from weakteach.artifacts.identity import jsonable
from weakteach.artifacts.losses import through_losses
from weakteach.artifacts.record import code_version, package_versions, seal
from weakteach.artifacts.step import Progress, Step, Workspace
from weakteach.artifacts.store import RECORD, Store


class StepProgress(Protocol):
    """Like ``step.Progress``, but for several steps: the first argument is the step at work."""

    def __call__(
        self, step: Step, done: int, total: int, tokens: int = 0, waits: bool = False
    ) -> None: ...


class Failures(Protocol):
    """Why steps failed for good: a reason for the fingerprint of each. A dict will do."""

    def get(self, fingerprint: str, /) -> str | None: ...

    def __setitem__(self, fingerprint: str, reason: str, /) -> None: ...


class _InOtherHands(Exception):
    """Another process is computing the step."""


class _DroppedMeanwhile(Exception):
    """Bulk that the step reads was dropped since its artifact was last seen whole."""


def obtain(
    store: Store, step: Step, execution: Any = None, progress: StepProgress | None = None
) -> dict[str, Any]:
    """Return the record of the step's artifact. If the artifact is missing, it is computed first,
    and so are the missing artifacts that it is computed from.

    Raises the UserError that a step failed with, and StepError in place of any other error.
    """
    outcome = obtain_each(store, [step], execution, progress=progress)[step]
    if isinstance(outcome, dict):
        return outcome
    if isinstance(outcome, UserError):
        raise outcome
    raise StepError(f"{step} failed: {outcome or type(outcome).__name__}") from outcome


def obtain_each(
    store: Store,
    targets: Iterable[Step],
    execution: Any = None,
    computed: Callable[[Step], None] | None = None,
    progress: StepProgress | None = None,
    failures: Failures | None = None,
) -> dict[Step, dict[str, Any] | Exception]:
    """Obtain several steps; return the record of each, or the exception with which it failed.

    If several processes want a step at the same time, one of them computes it. The others work on
    other targets meanwhile, and wait only if all targets that are missing are being computed.

    ``computed`` is called after each step that this call computed itself, and ``progress`` while a
    step is being computed. ``failures`` may be shared by several calls: a step that failed for good
    in one of them is not tried in the others, but fails there with a StepError of the same reason.
    """
    failures = {} if failures is None else failures
    outcomes: dict[Step, dict[str, Any] | Exception] = {}
    failed: dict[Step, Exception] = {}
    targets = list(targets)

    def visit(step: Step, wait: float) -> dict[str, Any]:
        if record := _whole(store, step):
            return record
        if step in failed:  # another target has tried
            raise failed[step]
        for parent in dict.fromkeys((*step.inputs, *step.read_in_bulk)):
            visit(parent, wait)
        try:
            with store.lease(type(step).__name__, step.fingerprint, wait):
                if record := _whole(store, step):
                    return record
                if reason := failures.get(step.fingerprint):
                    raise StepError(reason)
                try:
                    record = through_losses(partial(_compute, store, step, execution, progress))
                except _DroppedMeanwhile:
                    raise
                except Exception as error:
                    # Errors that may pass, or are of the storage, are no fault of the step's:
                    # whoever wants it tries it again.
                    if not (passes(error) or isinstance(error, StorageError)):
                        # Told before the lease is released, so that those who wait for it know.
                        failures[step.fingerprint] = str(error) or type(error).__name__
                    raise
        except Timeout:
            raise _InOtherHands from None
        except _DroppedMeanwhile:
            return visit(step, wait)
        except Exception as error:
            if record := _whole(store, step):
                return record  # another process, which took our lease for lost, was first
            failed[step] = error
            raise
        if computed:
            computed(step)
        return record

    wait = 0.0
    while missing := [step for step in targets if step not in outcomes]:
        moved = False
        for step in missing:
            try:
                outcomes[step] = visit(step, wait)
            except _InOtherHands:
                continue
            except Exception as error:
                outcomes[step] = error
            moved, wait = True, 0.0
        wait = 0.0 if moved else math.inf
    return outcomes


def _whole(store: Store, step: Step) -> dict[str, Any] | None:
    """The record of the step's artifact; None if there is no artifact or its bulk was dropped."""
    record = store.record(step)
    return None if record and step.bulk and store.dropped([step]) else record


def _compute(
    store: Store, step: Step, execution: Any, progress: StepProgress | None
) -> dict[str, Any]:
    hidden = f"{store.root}/{type(step).__name__}/.{step.fingerprint}"
    stage, scratch = f"{hidden}.{secrets.token_hex(4)}.stage", f"{hidden}.scratch"
    _sweep(store, hidden)
    store.filesystem.create_dir(scratch, recursive=True)
    store.filesystem.create_dir(stage, recursive=True)
    # Only after others can see the step at work: dropping does the reverse, see ``dropping.py``.
    if store.dropped(step.read_in_bulk):
        store.delete(stage)
        raise _DroppedMeanwhile
    run_folder = Path(scratch) if store.is_local else cache_folder() / "runs" / step.fingerprint
    out = Path(stage) if store.is_local else Path(tempfile.mkdtemp(prefix="weakteach-"))
    started, clock = time.time(), _Clock()
    try:
        told = partial(clock.follow, partial(progress, step)) if progress else None
        facts = step.compute(Workspace(store, out, stage, scratch, run_folder, execution, told))
        record = _describe(step, facts, execution, started, clock)
        if not store.is_local:
            fs.copy_files(str(out), stage, destination_filesystem=store.filesystem)
        _commit(store, step, stage, record)
    finally:
        store.delete(stage)
        if not store.is_local:
            shutil.rmtree(out, ignore_errors=True)
    store.delete(scratch)
    shutil.rmtree(run_folder, ignore_errors=True)
    return record


def _sweep(store: Store, hidden: str) -> None:
    """Delete the stage folders of earlier attempts, but not the files that they have moved to the
    artifact's place: an attempt that lost its lease by mistake may be about to write the record."""
    kind = fs.FileSelector(os.path.dirname(hidden), allow_not_found=True)
    for info in store.filesystem.get_file_info(kind):
        if info.path.startswith(f"{hidden}.") and info.path.endswith(".stage"):
            store.delete(info.path)


def _commit(store: Store, step: Step, stage: str, record: dict[str, Any]) -> None:
    """Move the staged files to the artifact's place, delete other files there, and write the record
    last. If two attempts do so at once, both move the same files there.
    """
    if _whole(store, step):
        return  # another process, which did not see our lease, was first: ours is not needed
    target = store.path(step)
    names = _files(store, stage)
    for name in sorted(names):
        store.filesystem.create_dir(os.path.dirname(f"{target}/{name}"), recursive=True)
        store.filesystem.move(f"{stage}/{name}", f"{target}/{name}")
    store.filesystem.create_dir(target, recursive=True)
    written = f".{RECORD}.partial"
    for name in _files(store, target) - names - {RECORD, written}:
        store.filesystem.delete_file(f"{target}/{name}")
    store.write(f"{target}/{written}", json.dumps(record, indent=1, sort_keys=True).encode())
    store.filesystem.move(f"{target}/{written}", f"{target}/{RECORD}")


def _files(store: Store, folder: str) -> set[str]:
    """Names, relative to the folder, of all files below it."""
    selector = fs.FileSelector(folder, recursive=True)
    infos = store.filesystem.get_file_info(selector)
    return {info.path[len(folder) + 1 :] for info in infos if info.is_file}


class _Clock:
    """How long a step takes and, as far as its progress tells, how long of this it has waited for
    devices."""

    def __init__(self) -> None:
        self._began = self._worked = time.monotonic()
        self._waits = False
        self.waited = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def follow(
        self, tell: Progress, done: int, total: int, tokens: int = 0, waits: bool = False
    ) -> None:
        """Pass progress on to ``tell``. The step has waited from the last time that it told of no
        wait to the next such time."""
        now = time.monotonic()
        if self._waits and not waits:
            self.waited += now - self._worked
        if not waits:
            self._worked = now
        self._waits = waits
        tell(done, total, tokens, waits=waits)


def _describe(
    step: Step, facts: dict[str, Any], execution: Any, started: float, clock: "_Clock"
) -> dict[str, Any]:
    devices, seconds = facts.pop("devices", 1), clock.seconds
    record = {
        "step": type(step).__name__,
        "fingerprint": step.fingerprint,
        "identity": step.identity,
        "parameters": step.parameters,
        "inputs": [jsonable(parent) for parent in step.inputs],
        "facts": facts,
        "execution": jsonable(execution, complete=True),
        "code": code_version(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "host": platform.node(),
        "started": started,
        "seconds": seconds,
        "device_seconds": (seconds - clock.waited) * devices,
    }
    return seal(record)
