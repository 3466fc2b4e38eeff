"""Where artifacts lie, how they are found and read, and who may work on which.

<storage>/<StepName>/<fingerprint>/…   the artifact; it exists when record.json does
"""

import hashlib
import math
import os
import platform
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from filelock import SoftFileLease
from pyarrow import fs

from weakteach.artifacts.copies import copy_of
from weakteach.artifacts.errors import StepError, StorageError
from weakteach.artifacts.identity import Identified
from weakteach.artifacts.record import digest_of, parse_record, stored_name
from weakteach.artifacts.storage import open_storage

RECORD, LEASES = "record.json", ".leases"
# A file in an artifact whose bulk was dropped. It lists the names of the files that were deleted.
DROPPED = "dropped.json"
# If the holder of a lease dies, another may take the lease after this time, or at once if the
# holder ran on the same host. A process that is merely starved of CPU must not count as dead.
LEASE_SECONDS = 15.0
POLL_SECONDS = 0.1

# A function of a key and a number of seconds. It returns a context in which no other process works
# on the key. It waits for another holder that long, and then raises filelock.Timeout.
Leases = Callable[[str, float], AbstractContextManager[Any]]


class _ComputedAnew(Exception):
    """An artifact was deleted, or computed again, while it was being copied."""


class Store:
    """Artifacts under a storage URL: a folder, or anything that pyarrow reaches (s3://, gs://).

    ``leases`` keeps two processes from computing the same step. On a file system, lease files are
    the default; an object store cannot keep any, so ``leases`` has to be given. Leases only save
    work: artifacts are whole even without them.
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
        """The opened storage. Its folder is not created here, but by what first writes to it."""
        return open_storage(self.url)

    @property
    def filesystem(self) -> fs.FileSystem:
        return self._place[0]

    @property
    def root(self) -> str:
        """The storage's path on its file system."""
        return self._place[1]

    @property
    def _whole_place(self) -> str:
        """What tells the storage from all others, in whatever form its URL is written: the kind of
        its file system, the host (of Azure the account), and the path. One keeper of leases may
        serve several storages."""
        parts = urlsplit(self.url)
        hosts = parse_qs(parts.query).get("endpoint_override", [parts.hostname or ""])
        path = self.root.lstrip("/")
        return f"{self.filesystem.type_name}://{hosts[0]}/{path}"

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def check_writable(self) -> None:
        """Make the storage's folder, write a small file there and delete it. Raises StorageError if
        that fails."""
        probe = f"{self.root}/.write-check-{platform.node()}-{os.getpid()}"
        try:
            self.filesystem.create_dir(self.root, recursive=True)
            self.write(probe, b"ok")
            self.filesystem.delete_file(probe)
        except OSError as error:
            raise StorageError(f"Storage {self.url} cannot be written: {error}") from error

    def path(self, step: Identified) -> str:
        """The folder of the step's artifact on ``filesystem``, whether or not it exists yet."""
        return self.place(type(step).__name__, step.fingerprint)

    def place(self, kind: str, fingerprint: str) -> str:
        """Like ``path``, for the name of a step's class and its fingerprint."""
        return f"{self.root}/{stored_name(kind)}/{stored_name(fingerprint)}"

    def url_of(self, path: str) -> str:
        """The URL of a path under ``root``, ending with the options of the storage's own URL."""
        url, mark, options = self.url.partition("?")
        return f"{url.rstrip('/')}{path[len(self.root) :]}{mark}{options}"

    def record(self, step: Identified) -> dict[str, Any] | None:
        """The record of the step's artifact, or None if there is no artifact."""
        return self.record_of(type(step).__name__, step.fingerprint)

    def record_of(self, kind: str, fingerprint: str) -> dict[str, Any] | None:
        """Like ``record``, for the name of a step's class and its fingerprint."""
        try:
            with self.filesystem.open_input_file(f"{self.place(kind, fingerprint)}/{RECORD}") as f:
                return parse_record(f.read(), kind, fingerprint)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"Storage {self.url} cannot be read: {error}") from error

    def existing(self, steps: Iterable[Identified]) -> set[str]:
        """The fingerprints of the steps whose artifacts exist. Lists the store once for each class
        of steps."""
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

    def dropped(self, steps: Iterable[Identified]) -> set[str]:
        """The fingerprints of the steps whose artifacts have dropped their bulk."""
        marks = {f"{self.path(step)}/{DROPPED}": step.fingerprint for step in steps}
        infos = self.filesystem.get_file_info(list(marks))
        return {marks[info.path] for info in infos if info.is_file}

    def find(self, fingerprint: str) -> dict[str, Any] | None:
        """The record of the artifact whose fingerprint is, or begins with, ``fingerprint``; None if
        there is no such artifact.

        Raises StorageError if there are several.
        """
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

    def local(self, step: Identified) -> Path:
        """A local folder with the artifact's files. From a remote storage they are fetched once per
        host, and again if the artifact was deleted and computed anew. See ``copies.py``.

        Raises StepError if there is no artifact, or if its bulk was dropped.
        """
        while True:
            record = self.record(step)
            if record is None:
                raise StepError(
                    f"{step} has no artifact in {self.url}: run the study that makes it"
                )
            if self.dropped([step]):
                raise StepError(
                    f"{step} has dropped its weights in {self.url}: submit a study that reads it, "
                    "and it is computed anew"
                )
            if self.is_local:
                return Path(self.path(step))
            storage = hashlib.sha256(self.url.encode()).hexdigest()[:12]
            name = f"{storage}/{type(step).__name__}/{step.fingerprint}-{digest_of(record)}"
            try:
                return copy_of(name, partial(self._size, step), partial(self._fetch, step, record))
            except _ComputedAnew:
                continue

    def _size(self, step: Identified) -> int:
        files = self.filesystem.get_file_info(fs.FileSelector(self.path(step), recursive=True))
        return sum(info.size or 0 for info in files)

    def _fetch(self, step: Identified, record: dict[str, Any], folder: Path) -> None:
        """Copy the artifact into the folder. Raises _ComputedAnew if its record is not ``record``
        once all files are copied, or if a file was deleted meanwhile."""
        try:
            fs.copy_files(self.path(step), str(folder), source_filesystem=self.filesystem)
        except FileNotFoundError:
            if self.record(step) == record:
                raise
            raise _ComputedAnew from None
        if self.record(step) != record:
            raise _ComputedAnew

    def lease(self, kind: str, fingerprint: str, wait: float) -> AbstractContextManager[Any]:
        """A lease, see ``Leases``. Raises StorageError for an object store without ``leases``."""
        key = f"{kind}-{fingerprint}"
        if self._leases:
            return self._leases(f"{self._whole_place} {key}", wait)
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

    def write(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path) as file:
            file.write(data)
