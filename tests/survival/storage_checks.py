"""What a store must do on a bad bucket or disk, each as a function that raises AssertionError, and
else tells what it saw."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faulty_server import FaultyProxy, objects

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import LEASE_SECONDS, RECORD, Store

ROOT = Path(__file__).parents[2]
MANY = 200_000


@dataclass(frozen=True)
class Numbers(Step):
    """Some files of numbers, one in a folder of its own and one written by "another host"."""

    name: str
    size: int = MANY

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        text = self.text()
        (workspace.out / "deep").mkdir()
        (workspace.out / "numbers.txt").write_bytes(text)
        (workspace.out / "deep" / "numbers.txt").write_bytes(text[::-1])
        far = f"{workspace.stage}/far.txt"
        with workspace.store.filesystem.open_output_stream(far) as file:
            file.write(text)
        return {"rows": 1}

    def text(self) -> bytes:
        return " ".join(map(str, range(self.size))).encode() + self.name.encode()

    def files(self) -> dict[str, bytes]:
        text = self.text()
        return {"numbers.txt": text, "deep/numbers.txt": text[::-1], "far.txt": text}


@dataclass(frozen=True)
class Waiting(Step):
    """Tells that it began, and waits for a file."""

    folder: str

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        Path(self.folder, f"began-{os.getpid()}-{threading.get_ident()}").touch()
        while not Path(self.folder, "go").exists():
            time.sleep(0.05)
        return {}


def alone(key: str, wait: float) -> Any:
    """Leases for a store that nobody else uses."""
    return nullcontext()


def whole_or_absent(proxy: FaultyProxy, folder: str, steps: list[Numbers]) -> int:
    """How many of the steps have a record in the bucket; AssertionError if one is not whole."""
    found = objects(proxy, folder)
    there = 0
    for step in steps:
        place = f"Numbers/{step.fingerprint}/"
        mine = {n.removeprefix(place): data for n, data in found.items() if n.startswith(place)}
        if RECORD in mine:
            del mine[RECORD]
            assert mine == step.files(), f"{step} holds {sorted(mine)}, not all of it whole"
            there += 1
    return there


def faults_are_ridden_out(proxy: FaultyProxy, steps: int) -> str:
    """Artifacts are written and read back through a bucket that fails at a rate."""
    store = Store(proxy.storage("faults"), alone)
    wanted = [Numbers(f"faults {number}") for number in range(steps)]
    outcomes = obtain_each(store, wanted)
    failed = [str(outcome) for outcome in outcomes.values() if isinstance(outcome, Exception)]
    assert not failed, failed[0]
    assert store.existing(wanted) == {step.fingerprint for step in wanted}
    for step in wanted:
        folder = store.local(step)
        for name, data in step.files().items():
            assert (folder / name).read_bytes() == data
    assert whole_or_absent(proxy, "faults", wanted) == steps
    left = [name for name in objects(proxy, "faults") if "/." in name]
    assert not left, f"left behind: {left}"
    faults = sum(count for kind, count in proxy.counts.items() if kind != "requests")
    assert faults, "no fault was met"
    return f"{steps} artifacts whole, {proxy.counts['requests']} requests, {faults} faults"


def an_outage_is_an_error_and_then_over(proxy: FaultyProxy) -> str:
    """A bucket that is down for longer than the attempts last; it goes on when it is up."""
    store, step = Store(proxy.storage("outage"), alone), Numbers("outage", 1000)
    store.check_writable()
    proxy.down = True
    started = time.monotonic()
    said = refusal(lambda: obtain(store, step))
    seconds = time.monotonic() - started
    proxy.down = False
    assert "503" in said or "SLOW_DOWN" in said, said
    assert whole_or_absent(proxy, "outage", [step]) == 0
    obtain(store, step)
    assert whole_or_absent(proxy, "outage", [step]) == 1
    return f"after {seconds:.0f} s: {said[:90]}"


def a_store_that_may_only_be_read_can_be(proxy: FaultyProxy) -> str:
    step, other = Numbers("read", 1000), Numbers("other", 1000)
    obtain(Store(proxy.storage("read"), alone), step)
    before = objects(proxy, "read")
    proxy.read_only = True
    try:
        store = Store(proxy.storage("read"), alone)
        assert store.record(step)
        assert store.find(step.fingerprint[:8])
        said = refusal(store.check_writable)
        assert "cannot be written" in said, said
        also = refusal(lambda: obtain(store, other))
        assert "ACCESS_DENIED" in also or "403" in also, also
    finally:
        proxy.read_only = False
    assert objects(proxy, "read") == before
    return said[:90]


def refusal(act: Any) -> str:
    """The one line of the UserError that it raises."""
    said = None
    try:
        act()
    except UserError as error:
        said = str(error)
    assert said, "nothing was refused"
    assert "\n" not in said
    return said


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A disk of that size mounted at the folder, where mounting is permitted; whether it is."""
    folder.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def a_full_disk_is_an_error_and_then_over(folder: Path) -> str:
    """On a small disk; without the right to mount one, under a limit of the size of files."""
    step = Numbers("disk")
    assert len(step.text()) > 1 << 20
    with small_disk(folder, "1m") as mounted:
        store = Store(folder / "store")
        if mounted:
            said = refusal(lambda: obtain(store, step))
            assert "No space left" in said, said
        else:
            said = _limited_to_a_megabyte(folder / "store")
        assert store.record(step) is None
        assert store.existing([step]) == set()
        assert not list(Path(store.root).glob("*/*.stage")), "a stage takes room on a full disk"
        if mounted:
            assert _mount("-o", "remount,size=64m", str(folder))
        obtain(store, step)
        for name, data in step.files().items():
            assert (store.local(step) / name).read_bytes() == data
    return said[-90:]


LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from storage_checks import Numbers, refusal
from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
print(refusal(lambda: obtain(Store(sys.argv[1]), Numbers("disk"))))
"""


def _limited_to_a_megabyte(storage: Path) -> str:
    command = [sys.executable, "-c", LIMITED, str(storage), str(Path(__file__).parent), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "File too large" in run.stdout, run.stdout
    return run.stdout.strip()


def a_folder_that_may_only_be_read_can_be(folder: Path) -> str:
    step, other = Numbers("disk", 1000), Numbers("other", 1000)
    with small_disk(folder, "8m") as mounted:
        obtain(Store(folder / "store"), step)
        if mounted:
            assert _mount("-o", "remount,ro", str(folder))
        else:
            for path in (folder / "store", folder / "store" / "Numbers", folder / "store/.leases"):
                path.chmod(0o555)
        store = Store(folder / "store")
        assert store.record(step)
        assert store.find(step.fingerprint[:8])
        assert (store.local(step) / "numbers.txt").read_bytes() == step.text()
        said = refusal(store.check_writable)
        also = refusal(lambda: obtain(store, other))
        assert "Read-only" in also or "Permission denied" in also, also
        if not mounted:
            for path in (folder / "store", folder / "store" / "Numbers", folder / "store/.leases"):
                path.chmod(0o755)
    return said[-90:]


JUMPED = """
import sys, time
sys.path[:0] = sys.argv[3:]
real = time.time
shift = float(sys.argv[2])
time.time = lambda: real() + shift
from storage_checks import Waiting
from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
obtain(Store(sys.argv[1] + "/store"), Waiting(sys.argv[1]))
print("obtained")
"""


def a_clock_that_is_off_takes_no_lease(folder: Path) -> str:
    """While one process is at work, processes whose clocks are a day before and behind ask for the
    same step for longer than a lease lasts; the step is computed once."""
    folder.mkdir()
    processes = []
    try:
        for shift in (0, 86_400, -86_400):
            command = [sys.executable, "-c", JUMPED, str(folder), str(shift)]
            command += [str(Path(__file__).parent), str(ROOT)]
            processes.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            if shift == 0:
                _wait_for(lambda: list(folder.glob("began-*")))
        # As a file server whose clock is off would have it.
        for marker in (folder / "store" / ".leases").iterdir():
            os.utime(marker, (0, 0))
        time.sleep(LEASE_SECONDS + 3)  # the span in which nothing may happen
        (folder / "go").touch()
        for process in processes:
            said, errors = process.communicate(timeout=120)
            assert said == "obtained\n", errors
    finally:
        for process in processes:
            process.kill()
    began = len(list(folder.glob("began-*")))
    assert began == 1, f"computed by {began} processes at once"
    return f"3 clocks a day apart, {LEASE_SECONDS + 3:.0f} s, computed once"


def a_clock_that_jumps_leaves_durations(folder: Path) -> str:
    """The clock goes back by a day while a step is computed."""
    folder.mkdir()
    real, step, store = time.time, Waiting(str(folder)), Store(folder / "store")
    done: list[dict[str, Any]] = []
    worker = threading.Thread(target=lambda: done.append(obtain(store, step)))
    worker.start()
    try:
        _wait_for(lambda: list(folder.glob("began-*")))
        time.time = lambda: real() - 86_400
        (folder / "go").touch()
        worker.join(60)
    finally:
        time.time = real
    assert done, "the step was not computed"
    assert 0 <= done[0]["seconds"] < 60, done[0]["seconds"]
    return f"took {done[0]['seconds']:.2f} s by its record"


def _wait_for(happened: Any) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
