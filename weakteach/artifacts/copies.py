"""Copies of remote artifacts on this host, each fetched once.

<cache>/copies/<storage>/<StepName>/<fingerprint>-<digest of the record>/…

All of them together take at most ``WEAKTEACH_CACHE_BYTES``, or half of the disk's room (what is
free and what they take already) where that is not set. To make room for another copy, the least
recently used ones are deleted, but none that was used within the last hour: whoever asks for a
copy loads it at once, and may still be doing so. If that frees too little, the bound is exceeded.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

from weakteach.artifacts.errors import StorageError

CACHE, CACHE_BYTES = "WEAKTEACH_CACHE", "WEAKTEACH_CACHE_BYTES"
SHARE_OF_ROOM = 0.5
KEPT_SECONDS = 3600.0
# As ``store.LEASE_SECONDS``, for the processes of one host.
LEASE_SECONDS = 15.0
PARTIAL = ".partial"


def cache_folder() -> Path:
    """Where this host keeps files of remote storages: ``WEAKTEACH_CACHE``, or
    ~/.cache/weakteach if that is not set."""
    return Path(os.environ.get(CACHE, Path.home() / ".cache" / "weakteach"))


def copy_of(name: str, size: Callable[[], int], fetch: Callable[[Path], None]) -> Path:
    """The copy called ``name``, a relative path of three parts.

    If this host does not have it, ``fetch`` is called to fill an empty folder with it; ``size``
    tells its bytes, for which room is made first. Raises what ``fetch`` raises, and StorageError if
    the bound on the cache is no number.
    """
    copy = cache_folder() / "copies" / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    with _lease(copy, wait=-1):
        if copy.is_dir():
            os.utime(copy)  # the time of its last use
        else:
            _make_room(size())
            partial = copy.with_name(copy.name + PARTIAL)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            fetch(partial)
            partial.rename(copy)
    return copy


def _make_room(wanted: int) -> None:
    """Delete copies, the least recently used first, until ``wanted`` more bytes are within the
    bound. A part of a copy, which a killed process had fetched, counts as a copy."""
    folders = [path for path in (cache_folder() / "copies").glob("*/*/*") if path.is_dir()]
    sizes = {folder: _bytes_of(folder) for folder in folders}
    taken = sum(sizes.values())
    bound = _bound(taken)
    for folder in sorted(folders, key=_last_use):
        if taken + wanted <= bound:
            return
        try:
            with _lease(folder.with_name(folder.name.removesuffix(PARTIAL)), wait=0):
                if folder.is_dir() and time.time() - _last_use(folder) >= KEPT_SECONDS:
                    _delete(folder)
                    taken -= sizes[folder]
        except Timeout:
            continue  # it is being used or fetched at this moment


def _bound(taken: int) -> float:
    if not (given := os.environ.get(CACHE_BYTES)):
        return SHARE_OF_ROOM * (shutil.disk_usage(cache_folder()).free + taken)
    if not given.isdecimal():
        raise StorageError(f"{CACHE_BYTES} is {given!r}, but has to be a whole number of bytes")
    return int(given)


def _delete(folder: Path) -> None:
    """Delete a copy. It is renamed first, so that no part of a copy is ever taken for the whole."""
    if folder.name.endswith(PARTIAL):
        partial = folder
    else:
        partial = folder.with_name(folder.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        folder.rename(partial)
    shutil.rmtree(partial, ignore_errors=True)


def _last_use(folder: Path) -> float:
    """When the copy was last used, in seconds since 1970; 0 if another process just deleted it."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _bytes_of(folder: Path) -> int:
    """Bytes of the folder's files, without those that another process deletes meanwhile."""
    size = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(inside, name)).st_size
    return size


def _lease(copy: Path, wait: float) -> SoftFileLease:
    """The lease that is held while a copy is looked for, fetched or deleted."""
    return SoftFileLease(f"{copy}.lease", lease_duration=LEASE_SECONDS, timeout=wait)
