"""Dropping the bulk of artifacts, such as the weights of a model, while their records stay.

The records still tell what was done. If a step is to read an artifact whose bulk was dropped, that
artifact is computed anew first, so no step misses files. Bulk is dropped in this order: the
artifact is marked, then it is checked whether somebody may be reading it, then the files are
deleted. Whoever computes a step first shows that it is at work and then looks for marks, so one of
the two sees the other. A killed process leaves at worst a mark on an artifact that is whole, or
files in a marked artifact, which the next process that drops its bulk deletes.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatch

from filelock import Timeout
from pyarrow import fs

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import DROPPED, Store


def at_hand(store: Store, steps: Sequence[Step]) -> set[str]:
    """The fingerprints of the steps that need not be computed in order to have all of them: their
    artifacts exist, and no step that has to be computed may read bulk that they have dropped. Each
    of the ``steps`` comes after its inputs."""
    existing = store.existing(steps)
    dropped = store.dropped(s for s in steps if s.bulk and s.fingerprint in existing)
    found = set(existing)
    read: set[str] = set()
    for step in reversed(steps):
        if step.fingerprint in read & dropped:
            found.discard(step.fingerprint)
        if step.fingerprint not in found:
            read |= {one.fingerprint for one in step.read_in_bulk}
    return found


def drop_bulk(store: Store, steps: Iterable[Step], kept: Callable[[], set[str]]) -> dict[Step, int]:
    """Delete the bulk of the steps whose artifacts exist, that no process is computing, and that
    are not among ``kept``. Return the number of bytes that were deleted, by step.

    ``kept`` returns the fingerprints of the steps whose bulk somebody may be reading or is about to
    read. It is called once the steps are marked. Of a step that was marked before, the files that
    are left are deleted in any case.
    """
    with ExitStack() as leases:
        ours = [step for step in steps if _hold(leases, store, step) and store.record(step)]
        before = store.dropped(ours)
        names = {step: _bulk(store, step) for step in ours}
        marked = [step for step in ours if step.fingerprint not in before]
        try:
            for step in marked:
                names_of = sorted(info.base_name for info in names[step])
                store.write(f"{store.path(step)}/{DROPPED}", json.dumps(names_of).encode())
            staying = kept()
        except BaseException:
            _unmark(store, marked)
            raise
        _unmark(store, [step for step in marked if step.fingerprint in staying])
        gone = [s for s in ours if s.fingerprint in before or s.fingerprint not in staying]
        for step in gone:
            for info in names[step]:
                store.filesystem.delete_file(info.path)
    return {step: sum(info.size or 0 for info in names[step]) for step in gone if names[step]}


def _hold(leases: ExitStack, store: Store, step: Step) -> bool:
    try:
        leases.enter_context(store.lease(type(step).__name__, step.fingerprint, wait=0.0))
    except Timeout:
        return False
    return True


def _bulk(store: Store, step: Step) -> list[fs.FileInfo]:
    infos = store.filesystem.get_file_info(fs.FileSelector(store.path(step)))
    return [
        info
        for info in infos
        if info.is_file and any(fnmatch(info.base_name, pattern) for pattern in step.bulk)
    ]


def _unmark(store: Store, steps: Iterable[Step]) -> None:
    marks = [f"{store.path(step)}/{DROPPED}" for step in steps]
    for info in store.filesystem.get_file_info(marks):
        if info.is_file:
            store.filesystem.delete_file(info.path)
