"""The folder of a worker of a group, on the worker's own host."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from weakteach.artifacts.copies import cache_folder


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder that is deleted when the worker is done with it; nothing is ever resumed from
    it.

    A worker that is killed cannot delete its folder. The operating system frees its lock, by which
    the next worker on the host knows that it may delete the folder.
    """
    workers = cache_folder() / "workers"
    workers.mkdir(parents=True, exist_ok=True)
    for lock in workers.glob("*.lock"):
        try:
            with FileLock(lock, timeout=0):
                _delete(lock)
        except Timeout:
            continue  # its worker is alive
    lock = workers / f"{uuid.uuid4().hex}.lock"
    with FileLock(lock):
        try:
            folder = lock.with_suffix("")
            folder.mkdir()
            yield folder
        finally:
            _delete(lock)


def _delete(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
