"""Where artifacts lie, how they are found and read, and who may work on one.

<storage>/<StepName>/<fingerprint>/…   the artifact; it exists when record.json does
"""

import hashlib
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import SoftFileLease
from pyarrow import fs

from weakteach.artifacts.errors import StepError, StorageError
from weakteach.artifacts.identity import Identified
from weakteach.artifacts.record import parse_record, stored_name
from weakteach.artifacts.storage import open_storage

RECORD, LEASES = "record.json", ".leases"
# A holder that is gone is replaced after this long; at once if it ran on the same host. One that
# is merely starved of CPU must not be taken for gone.
LEASE_SECONDS = 15.0
POLL_SECONDS = 0.1

# For a key, and the seconds to wait for another holder: a context in which this process is the only
# one at work on it. Raises filelock.Timeout if another holds the key after that.
Leases = Callable[[str, float], AbstractContextManager[Any]]


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
            self.write(probe, b"ok")
            self.filesystem.delete_file(probe)
        except OSError as error:
            raise StorageError(f"Storage {self.url} cannot be written: {error}") from error

    def path(self, step: Identified) -> str:
        """Where the artifact of the step lies (or will lie), on ``filesystem``."""
        return self.place(type(step).__name__, step.fingerprint)

    def place(self, kind: str, fingerprint: str) -> str:
        """``path`` of a step that is known by the name of its class and its fingerprint."""
        return f"{self.root}/{stored_name(kind)}/{stored_name(fingerprint)}"

    def url_of(self, path: str) -> str:
        """The URL of a path under ``root``; options after a ``?`` stay at its end."""
        url, mark, options = self.url.partition("?")
        return f"{url.rstrip('/')}{path[len(self.root) :]}{mark}{options}"

    def record(self, step: Identified) -> dict[str, Any] | None:
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

    def existing(self, steps: Iterable[Identified]) -> set[str]:
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

    def local(self, step: Identified) -> Path:
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

    def write(self, path: str, data: bytes) -> None:
        with self.filesystem.open_output_stream(path) as file:
            file.write(data)


def cache_folder() -> Path:
    """Where this host keeps copies of remote artifacts: ``WEAKTEACH_CACHE`` or ~/.cache."""
    return Path(os.environ.get("WEAKTEACH_CACHE", Path.home() / ".cache" / "weakteach"))
