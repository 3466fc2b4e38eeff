"""Processes of one run on this machine, told apart from those of any other by the run's folder for
temporary files, and sorted by the titles that Ray gives to its workers."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

# Children inherit it; Ray's agents overwrite theirs with a title, but log below the folder.
MARK = "TMPDIR"
# Titles of the workers of a study, by what dies with them. What is not listed is Ray's own.
TITLES = {
    "trial": re.compile(r"^ray::(ImplicitFunc|run_arm)"),
    "train controller": re.compile(r"^ray::TrainController"),
    "train worker": re.compile(r"^ray::(RayTrainWorker|_RayTrainWorker)"),
    "label actor": re.compile(r"^ray::Holder\b"),
    "prepare task": re.compile(r"^ray::MapBatches\(prepare_shards\)(?!->)"),
    "label task": re.compile(r"^ray::.*MapBatches\(make_shards\)"),
}
# Workers that Ray keeps for itself: those that wait for work, agents, and its own actors.
OF_RAY = re.compile(
    r"^ray::(IDLE|SPILL|RESTORE|DashboardAgent|RuntimeEnvAgent|_StatsActor|_AutoscalingCoordinatorActor)"
)


def kind_of(title: str) -> str | None:
    """What a process with this title is to a study, or None."""
    return next((kind for kind, pattern in TITLES.items() if pattern.match(title)), None)


def title_of(process: psutil.Process) -> str:
    """Its command line; empty if it is gone."""
    try:
        return " ".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def belongs(process: psutil.Process, folder: str) -> bool:
    if process.environ().get(MARK) == folder:
        return True
    return any(file.path.startswith(f"{folder}/") for file in process.open_files())


def of_run(folder: str) -> list[psutil.Process]:
    """Living processes of the run with this folder, this one left out. Zombies have nothing."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and belongs(process, folder):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def workers(folder: str) -> dict[str, list[psutil.Process]]:
    """The study's workers of a run, by kind, in the order of their start."""
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in TITLES}
    for process in of_run(folder):
        if kind := kind_of(title_of(process)):
            found[kind].append(process)
    return found


def at_work(folder: str) -> list[str]:
    """Titles of Ray workers of a run that are neither idle nor Ray's own."""
    titles = [title_of(process) for process in of_run(folder)]
    return sorted(
        title for title in titles if title.startswith("ray::") and not OF_RAY.match(title)
    )


def kill(process: psutil.Process) -> bool:
    """SIGKILL; whether it was alive."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def kill_family(process: psutil.Process) -> bool:
    """SIGKILL to a process and all that it started, as when a machine goes; whether it lived."""
    try:
        children = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    killed = kill(process)
    for child in children:
        kill(child)
    return killed


def polling(seconds: float, every: float = 0.5) -> Iterator[None]:
    """Go round until that long has passed; the last round comes after it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(every)
    yield


@contextmanager
def nothing_left(folder: str, seconds: float = 60.0) -> Iterator[list[str]]:
    """Run the body; the list then holds titles of the run's processes that outlived it by so
    many seconds. They are killed."""
    left: list[str] = []
    try:
        yield left
    finally:
        for _ in polling(seconds):
            alive = of_run(folder)
            if not alive:
                break
        left += [title_of(process) for process in alive]
        for process in alive:
            kill(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
