"""Where artifacts lie, and how each is computed once.

<storage>/<StepName>/<fingerprint>/…                the artifact; it exists when record.json does
<storage>/<StepName>/.<fingerprint>.<try>.stage/…   being written; swept by the next try
<storage>/<StepName>/.<fingerprint>.scratch/…       survives a kill (checkpoints, shards), so that
                                                    the next try can go on from it
"""

import hashlib
import json
import math
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from filelock import SoftFileLease, Timeout
from pyarrow import fs

from weakteach.artifacts.errors import StepError, StorageError, UserError
from weakteach.artifacts.losses import through_losses
from weakteach.artifacts.record import (
    code_version,
    package_versions,
    parse_record,
    seal,
    stored_name,
)
from weakteach.artifacts.step import Step, jsonable
from weakteach.artifacts.storage import open_storage

RECORD, LEASES = "record.json", ".leases"
# A holder that is gone is replaced after this long; at once if it ran on the same host. One that
# is merely starved of CPU must not be taken for gone.
LEASE_SECONDS = 15.0
POLL_SECONDS = 0.1

# For a key, and the seconds to wait for another holder: a context in which this process is the only
# one at work on it. Raises filelock.Timeout if another holds the key after that.
Leases = Callable[[str, float], AbstractContextManager[Any]]


class Progress(Protocol):
    """Told how much of a step's work is done, how much there is in all, and the tokens read."""

    def __call__(self, done: int, total: int, tokens: int = 0) -> None: ...


class StepProgress(Protocol):
    def __call__(self, step: Step, done: int, total: int, tokens: int = 0) -> None: ...


class _InOtherHands(Exception):
    """Another process is computing the step."""


@dataclass(frozen=True)
class Workspace:
    """What a step is given to compute itself: its inputs' artifacts and places to write to.

    ``out`` is a local folder whose files become the artifact, ``stage`` the folder on the storage
    to which they go: what other hosts write there becomes part of it too. ``scratch`` is a folder
    on the storage, ``run_folder`` one of this host, that outlive a killed try. ``execution`` says
    how to run (devices, workers), which never changes what is computed.
    """

    store: "Store"
    out: Path
    stage: str
    scratch: str
    run_folder: Path
    execution: Any = None
    progress: Progress | None = None

    @property
    def scratch_url(self) -> str:
        """``scratch`` as a URL, for libraries that open storages themselves."""
        return self.store.url_of(self.scratch)


class Store:
    """Artifacts under a storage URL: a folder, or anything that pyarrow reaches (s3://, gs://).

    The default of ``leases`` is a lease file on a file system; an object store has none of its own
    and needs one from outside. A lease only saves work: what is committed is whole without it.
    """

    def __init__(self, url: str | os.PathLike[str], leases: Leases | None = None) -> None:
        self.url = str(url) if "://" in str(url) else str(Path(url).expanduser().absolute())
        self._leases = leases

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self.url, self._leases))

    @cached_property
    def _place(self) -> tuple[fs.FileSystem, str]:
        """Looked at only: the folder is made by what is first written."""
        return open_storage(self.url)

    @property
    def filesystem(self) -> fs.FileSystem:
        return self._place[0]

    @property
    def root(self) -> str:
        """The storage's path on its file system."""
        return self._place[1]

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def check_writable(self) -> None:
        """Make the storage's folder. Raises StorageError when a small file cannot be written there,
        read back and removed."""
        probe = f"{self.root}/.write-check-{platform.node()}-{os.getpid()}"
        try:
            self.filesystem.create_dir(self.root, recursive=True)
            self._write(probe, b"ok")
            self.filesystem.delete_file(probe)
        except OSError as error:
            raise StorageError(f"Storage {self.url} cannot be written: {error}") from error

    def path(self, step: Step) -> str:
        """Where the artifact of the step lies (or will lie), on ``filesystem``."""
        return self.place(type(step).__name__, step.fingerprint)

    def place(self, kind: str, fingerprint: str) -> str:
        """``path`` of a step that is known by the name of its class and its fingerprint."""
        return f"{self.root}/{stored_name(kind)}/{stored_name(fingerprint)}"

    def url_of(self, path: str) -> str:
        """The URL of a path under ``root``; options after a ``?`` stay at its end."""
        url, mark, options = self.url.partition("?")
        return f"{url.rstrip('/')}{path[len(self.root) :]}{mark}{options}"

    def record(self, step: Step) -> dict[str, Any] | None:
        """The record of the step's artifact, or None if there is no artifact."""
        return self.record_of(type(step).__name__, step.fingerprint)

    def record_of(self, kind: str, fingerprint: str) -> dict[str, Any] | None:
        """``record`` of a step that is known by the name of its class and its fingerprint."""
        try:
            with self.filesystem.open_input_file(f"{self.place(kind, fingerprint)}/{RECORD}") as f:
                return parse_record(f.read(), kind, fingerprint)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"Storage {self.url} cannot be read: {error}") from error

    def existing(self, steps: Iterable[Step]) -> set[str]:
        """Fingerprints of those steps whose artifact exists; one listing for each kind of step."""
        wanted: dict[str, set[str]] = {}
        for step in steps:
            wanted.setdefault(type(step).__name__, set()).add(step.fingerprint)
        found: set[str] = set()
        for name, fingerprints in wanted.items():
            selector = fs.FileSelector(f"{self.root}/{name}", allow_not_found=True)
            listed = {info.base_name for info in self.filesystem.get_file_info(selector)}
            candidates = sorted(fingerprints & listed)
            records = [f"{self.root}/{name}/{fingerprint}/{RECORD}" for fingerprint in candidates]
            infos = self.filesystem.get_file_info(records)
            found |= {
                fingerprint
                for fingerprint, info in zip(candidates, infos, strict=True)
                if info.type == fs.FileType.File
            }
        return found

    def find(self, fingerprint: str) -> dict[str, Any] | None:
        """The record of the artifact with this fingerprint (or unambiguous start of one)."""
        selector = fs.FileSelector(self.root, allow_not_found=True)
        kinds = [info for info in self.filesystem.get_file_info(selector) if not info.is_file]
        matches = []
        for kind in kinds:
            inside = self.filesystem.get_file_info(fs.FileSelector(kind.path))
            matches += [i.path for i in inside if i.base_name.startswith(fingerprint)]
        records = [f"{path}/{RECORD}" for path in matches]
        infos = [info for info in self.filesystem.get_file_info(records) if info.is_file]
        if len(infos) > 1:
            raise StorageError(f"{fingerprint} is the start of {len(infos)} fingerprints")
        if not infos:
            return None
        kind, found, _ = infos[0].path[len(self.root) + 1 :].split("/")
        return self.record_of(kind, found)

    def local(self, step: Step) -> Path:
        """A local folder with the artifact's files; fetched once a host from a remote storage.

        Raises StepError if there is no artifact.
        """
        record = self.record(step)
        if record is None:
            raise StepError(f"{step} has no artifact in {self.url}: run the study that makes it")
        if self.is_local:
            return Path(self.path(step))
        storage_key = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        cached = cache_folder() / storage_key / type(step).__name__ / step.fingerprint
        if not (cached / RECORD).exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            with SoftFileLease(f"{cached}.lease", lease_duration=LEASE_SECONDS):
                if not (cached / RECORD).exists():
                    shutil.rmtree(cached, ignore_errors=True)
                    partial = Path(tempfile.mkdtemp(dir=cached.parent))
                    fs.copy_files(self.path(step), str(partial), source_filesystem=self.filesystem)
                    partial.rename(cached)
        return cached

    def obtain(
        self, step: Step, execution: Any = None, progress: StepProgress | None = None
    ) -> dict[str, Any]:
        """The record of the step's artifact, computing it and what it reads where missing."""
        outcome = self.obtain_each([step], execution, progress=progress)[step]
        if isinstance(outcome, dict):
            return outcome
        if isinstance(outcome, UserError):
            raise outcome
        raise StepError(f"{step} failed: {outcome or type(outcome).__name__}") from outcome

    def obtain_each(
        self,
        targets: Iterable[Step],
        execution: Any = None,
        computed: Callable[[Step], None] | None = None,
        progress: StepProgress | None = None,
    ) -> dict[Step, dict[str, Any] | Exception]:
        """For each target its record, or the exception with which it failed.

        Of all processes that want one step at a time, one computes it. The others go on with
        another target meanwhile, and wait only when every missing one is in other hands.
        ``computed`` is called after each step that this call computed itself, ``progress`` while
        a step goes on.
        """
        outcomes: dict[Step, dict[str, Any] | Exception] = {}
        failed: dict[Step, Exception] = {}
        targets = list(targets)

        def visit(step: Step, wait: float) -> dict[str, Any]:
            if record := self.record(step):
                return record
            if step in failed:  # another target has tried
                raise failed[step]
            for parent in step.inputs:
                visit(parent, wait)
            try:
                with self.lease(type(step).__name__, step.fingerprint, wait):
                    if record := self.record(step):
                        return record
                    record = through_losses(partial(self._compute, step, execution, progress))
            except Timeout:
                raise _InOtherHands from None
            except Exception as error:
                if record := self.record(step):
                    return record  # another process took our lease for lost, and was first
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

    def _compute(self, step: Step, execution: Any, progress: StepProgress | None) -> dict[str, Any]:
        hidden = f"{self.root}/{type(step).__name__}/.{step.fingerprint}"
        stage, scratch = f"{hidden}.{secrets.token_hex(4)}.stage", f"{hidden}.scratch"
        self._sweep(step, hidden)
        self.filesystem.create_dir(scratch, recursive=True)
        self.filesystem.create_dir(stage, recursive=True)
        run_folder = Path(scratch) if self.is_local else cache_folder() / "runs" / step.fingerprint
        out = Path(stage) if self.is_local else Path(tempfile.mkdtemp(prefix="weakteach-"))
        started, clock = time.time(), time.monotonic()
        try:
            told = partial(progress, step) if progress else None
            facts = step.compute(Workspace(self, out, stage, scratch, run_folder, execution, told))
            record = self._describe(step, facts, started, time.monotonic() - clock)
            if not self.is_local:
                fs.copy_files(str(out), stage, destination_filesystem=self.filesystem)
            self._commit(step, stage, record)
        finally:
            self.delete(stage)
            if not self.is_local:
                shutil.rmtree(out, ignore_errors=True)
        self.delete(scratch)
        shutil.rmtree(run_folder, ignore_errors=True)
        return record

    def _sweep(self, step: Step, hidden: str) -> None:
        """Delete what earlier tries were writing. What they have put in place already stays until
        there is more: one whose lease was lost by mistake may be about to write its record."""
        kind = fs.FileSelector(os.path.dirname(hidden), allow_not_found=True)
        for info in self.filesystem.get_file_info(kind):
            if info.path.startswith(f"{hidden}.") and info.path.endswith(".stage"):
                self.delete(info.path)

    def _commit(self, step: Step, stage: str, record: dict[str, Any]) -> None:
        """Move the staged files to their place, delete what else is there, write the record last.

        Where two tries do so at once, both put the same files there.
        """
        if self.record(step):
            return  # another process, which could not see our lease, was first: drop ours
        target = self.path(step)
        names = self._files(stage)
        for name in sorted(names):
            self.filesystem.create_dir(os.path.dirname(f"{target}/{name}"), recursive=True)
            self.filesystem.move(f"{stage}/{name}", f"{target}/{name}")
        self.filesystem.create_dir(target, recursive=True)
        written = f".{RECORD}.partial"
        for name in self._files(target) - names - {RECORD, written}:
            self.filesystem.delete_file(f"{target}/{name}")
        self._write(f"{target}/{written}", json.dumps(record, indent=1, sort_keys=True).encode())
        self.filesystem.move(f"{target}/{written}", f"{target}/{RECORD}")

    def _files(self, folder: str) -> set[str]:
        """Names, relative to the folder, of all files below it."""
        selector = fs.FileSelector(folder, recursive=True)
        infos = self.filesystem.get_file_info(selector)
        return {info.path[len(folder) + 1 :] for info in infos if info.is_file}

    def _describe(
        self, step: Step, facts: dict[str, Any], started: float, seconds: float
    ) -> dict[str, Any]:
        devices = facts.pop("devices", 1)
        record = {
            "step": type(step).__name__,
            "fingerprint": step.fingerprint,
            "identity": step.identity,
            "parameters": step.parameters,
            "inputs": [jsonable(parent) for parent in step.inputs],
            "facts": facts,
            "code": code_version(),
            "packages": package_versions(),
            "python": platform.python_version(),
            "host": platform.node(),
            "started": started,
            "seconds": seconds,
            "device_seconds": seconds * devices,
        }
        return seal(record)

    def lease(self, kind: str, fingerprint: str, wait: float) -> AbstractContextManager[Any]:
        """See ``Leases``. Raises StorageError on an object store that was given none."""
        key = f"{kind}-{fingerprint}"
        if self._leases:
            return self._leases(key, wait)
        if not self.is_local:
            raise StorageError(f"{self.url} is an object store: a Store on it needs leases")
        folder = Path(self.root) / LEASES
        folder.mkdir(parents=True, exist_ok=True)
        return SoftFileLease(
            folder / key,
            lease_duration=LEASE_SECONDS,
            poll_interval=POLL_SECONDS,
            timeout=-1 if math.isinf(wait) else wait,
            thread_local=False,
        )

    def delete(self, path: str) -> None:
        if self.filesystem.get_file_info(path).type == fs.FileType.Directory:
            self.filesystem.delete_dir(path)

    def _write(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path) as file:
            file.write(data)


def cache_folder() -> Path:
    """Where this host keeps copies of remote artifacts: ``WEAKTEACH_CACHE`` or ~/.cache."""
    return Path(os.environ.get("WEAKTEACH_CACHE", Path.home() / ".cache" / "weakteach"))
