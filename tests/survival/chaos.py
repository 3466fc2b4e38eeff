"""A study while a monkey kills its processes, nodes and driver, against the same study undisturbed.

    python tests/survival/chaos.py
    python tests/survival/chaos.py --kills 30 --seeds 0,1,2
    python tests/survival/chaos.py --max-seeds 8 --pairs 1024             # a study in rounds
    python tests/survival/chaos.py --train-workers 0 --label-actors 0     # as on a laptop

Raises a Ray cluster on this machine: a head without CPUs, and nodes that come and go. On it runs
the size grid at its smallest, as a process of its own that joins the cluster by address. The
monkey SIGKILLs trials, controllers and workers of trainings, actors or tasks that label, whole
nodes (a new one takes their place some seconds later), and the driver, which is then submitted
again. In the end the study must be what it would have been: the files of all artifacts and
results.parquet byte by byte, the answers word by word, one row for each pair in each label table,
and no lease, no process and nothing half-written left. A study in rounds must have decided
something, or its answers would be equal whatever they rest on. Exits with 1 if any of this does
not hold.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Annotated, Any

import psutil
from checks import artifact_files, differing, incomplete, leases, leftovers, unsound_labels
from cyclopts import Parameter
from cyclopts.validators import Number
from monkey import LEAST_GAP_SECONDS, Kill, Monkey, gap_of
from nodes import Nodes
from processes import at_work, kill, kill_family, nothing_left, polling, workers
from rich.console import Console
from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.results.analysis import analyze
from weakteach.results.findings import DECIDED
from weakteach.run.deciding import FIRST_SEED
from weakteach.run.terminal import launch, script
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import beside_human, size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.manifest import read_manifest
from weakteach.study.presets import EMBEDDED

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 1800
# For a head that misses a lost node within seconds, as one machine's nodes do not share a network.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
}


def listed(items: Iterable[object]) -> str:
    return ",".join(map(str, items))


@dataclass(frozen=True)
class Study:
    """The size grid that is disturbed, and how it is run: in rounds of up to ``max_seeds`` seeds,
    if that is not 0."""

    choices: Choices
    max_seeds: int
    train_workers: int
    label_actors: int

    def command(self, storage: Path, address: str) -> list[str]:
        options = {
            "--storage": storage,
            "--data": self.choices.data,
            "--test-pairs": self.choices.test_pairs,
            "--weak": listed(self.choices.weak),
            "--student": self.choices.student,
            "--fractions": listed(self.choices.fractions),
            "--gold": listed(self.choices.gold),
            "--train-workers": self.train_workers,
            "--label-actors": self.label_actors,
            "--checkpoint-steps": 10,
            "--address": address,
        }
        if self.max_seeds:
            seeds = ["--decide", "--max-seeds", str(self.max_seeds)]
        else:
            seeds = ["--seeds", listed(self.choices.seeds)]
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "sweeps/size_grid.py", *words, *seeds, "--verbose"]

    def steps(self, done: Store) -> list[Step]:
        """All steps; of a study in rounds those that a store has, since they follow from what it
        found."""
        rounds = range(FIRST_SEED, FIRST_SEED + self.max_seeds)
        choices = replace(self.choices, seeds=tuple(rounds) or self.choices.seeds)
        grid = make_grid(EMBEDDED, EMBEDDED.first, choices, resolve=True)
        study = [size_grid(grid), beside_human(grid)]
        steps = walk(target for arm in arms_of(study) for target in arm.targets)
        return [step for step in steps if not rounds or done.record(step)]


@dataclass(frozen=True)
class Run:
    """A study that came to its end. ``checks`` says of each what does not hold, if anything."""

    name: str
    seconds: float
    drivers: int
    kills: list[Kill] = field(default_factory=list)
    checks: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        return not any(self.checks.values())


class Driver:
    """The study's driver, a process of its own with a log."""

    def __init__(self, command: list[str], log: IO[bytes]) -> None:
        self._command, self._log = command, log
        self.started = 0
        self.submit()

    def submit(self) -> None:
        self.started += 1
        self._log.write(f"--- {shlex.join(self._command)}\n".encode())
        self._log.flush()
        self.process = psutil.Popen(
            self._command, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT
        )

    def lose(self) -> str | None:
        if not kill_family(self.process):
            return None
        self.process.wait()
        self.submit()
        return f"driver {self.started - 1}"


def run(
    name: str, study: Study, folder: Path, nodes: tuple[int, int], monkey: Monkey | None
) -> tuple[Run, Store]:
    """Run the study on a cluster of its own, with the monkey about."""
    storage, console = folder / name, Console()
    with nothing_left(os.environ["TMPDIR"]) as outlived, (folder / f"{name}.log").open("wb") as log:
        cluster = Nodes(*nodes)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # Ray has one of its own
        driver = None
        try:
            started = time.monotonic()
            driver = Driver(study.command(storage, cluster.address), log)
            while driver.process.poll() is None:
                if time.monotonic() - started > PATIENCE_SECONDS:
                    raise UserError(f"{name} is not done after {PATIENCE_SECONDS} s")
                time.sleep(0.1)
                cluster.replace_lost()
                if monkey and monkey.due:
                    _strike(monkey, cluster, driver, console)
            seconds = time.monotonic() - started
            for _ in polling(60):
                busy = at_work(os.environ["TMPDIR"])
                if not busy:
                    break
        finally:
            if driver:
                kill_family(driver.process)
            cluster.shutdown()
    ended = [] if driver.process.returncode == 0 else [f"exit code {driver.process.returncode}"]
    kills = monkey.done if monkey else []
    checks = {
        "driver ended well": ended,
        "no worker after the driver": busy,
        "no process after the cluster": outlived,
    }
    return Run(name, seconds, driver.started, kills, checks), Store(storage)


def _strike(monkey: Monkey, cluster: Nodes, driver: Driver, console: Console) -> None:
    victims: dict[str, list[Any]] = {
        **workers(os.environ["TMPDIR"]),
        "node": cluster.extra,
        "driver": [driver.process],
    }

    def strike(kind: str, victim: Any) -> str | None:
        if kind == "node":
            return cluster.lose(victim)
        if kind == "driver":
            return driver.lose()
        return f"process {victim.pid}" if kill(victim) else None

    if killed := monkey.strike(victims, strike):
        number, at = len(monkey.done), killed.seconds
        console.print(f"{number:3d}. {at:6.1f} s  {killed.kind}: {killed.victim}", highlight=False)


def with_something_decided(calm: Run, store: Store) -> Run:
    """The run, in which a check is that its study decided anything."""
    said = analyze(store, read_manifest(store, "size_grid")).answers
    decided = [one.sentence for one in said if one.verdict in DECIDED]
    check = {"something decided": [] if decided else [one.sentence for one in said]}
    return replace(calm, checks=calm.checks | check)


def compare(calm: Store, run: Run, store: Store, steps: list[Step], kills: int) -> Run:
    """The run with all checks against the undisturbed store, whose steps these are."""
    results = "studies/size_grid/results.parquet"
    missing = incomplete(store, steps)
    files = [differing(artifact_files(calm, steps), artifact_files(store, steps))]
    tables = [Path(of.root, results).read_bytes() for of in (calm, store) if not missing]
    checks = {
        **run.checks,
        f"at least {kills} kills": [] if len(run.kills) >= kills else [f"{len(run.kills)}"],
        "every step done": missing,
        "artifacts byte equal": files[0],
        "results byte equal": [] if len(set(tables)) == 1 else [results],
        "same answers": [] if answers(calm) == answers(store) else ["other words"],
        "a row for each pair": [] if missing else unsound_labels(store, steps),
        "no lease left": leases(store),
        "nothing half-written left": leftovers(store),
    }
    return Run(run.name, run.seconds, run.drivers, run.kills, checks)


def answers(store: Store) -> str:
    """What the report says on the terminal."""
    command = [sys.executable, "-m", "weakteach", "report", "size_grid", "--storage", store.url]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    assert told, f"no report in {store.url}"
    return told.replace(store.url, "")


def show(console: Console, calm: Run, runs: list[Run]) -> None:
    table = Table(title=f"Undisturbed: {calm.seconds:.0f} s", title_justify="left")
    kinds = sorted({kill.kind for run in runs for kill in run.kills})
    for heading in ("monkey", "kills", *kinds, "drivers", "seconds", "lost per kill", "checks"):
        table.add_column(heading, justify="left" if heading in ("monkey", "checks") else "right")
    for run in runs:
        counts = Counter(kill.kind for kill in run.kills)
        lost = (run.seconds - calm.seconds) / max(1, len(run.kills))
        held = sum(not found for found in run.checks.values())
        table.add_row(
            run.name, str(len(run.kills)), *(str(counts[kind]) for kind in kinds),
            str(run.drivers), f"{run.seconds:.0f}", f"{lost:.1f} s",
            f"{held} of {len(run.checks)} hold",
        )  # fmt: skip
    console.print(table)
    for run in (calm, *runs):
        for check, found in run.checks.items():
            if found:
                console.print(f"{run.name}: not so: {check}: {'; '.join(found[:10])}", markup=False)


def main(
    kills: Annotated[
        int, Parameter(help="Kills of each disturbed run.", validator=Number(gte=1))
    ] = 30,
    seeds: Annotated[str, Parameter(help="Seeds of the monkey, a run for each.")] = "0",
    gap: Annotated[
        float | None,
        Parameter(
            help="Mean seconds between two kills; without it as many as let all kills come within "
            "70% of the time that the study takes undisturbed.",
            validator=Number(gte=LEAST_GAP_SECONDS),
        ),
    ] = None,
    train_workers: Annotated[
        int,
        Parameter(help="Workers of a training; 0 trains in the trial.", validator=Number(gte=0)),
    ] = 2,
    label_actors: Annotated[
        int, Parameter(help="Actors of a labeling; 0 labels in tasks.", validator=Number(gte=0))
    ] = 1,
    nodes: Annotated[int, Parameter(help="Nodes besides the head.", validator=Number(gte=1))] = 2,
    cpus: Annotated[
        int, Parameter(help="CPUs of each in Ray's eyes.", validator=Number(gte=1))
    ] = 3,
    pairs: Annotated[
        int, Parameter(help="Pairs of the embedded world.", validator=Number(gte=100))
    ] = 400,
    max_seeds: Annotated[
        int,
        Parameter(
            help="Go in rounds of up to so many seeds; 0 takes seed 0.", validator=Number(gte=0)
        ),
    ] = 0,
    folder: Annotated[
        Path | None, Parameter(help="Where stores and logs stay; a temporary one without it.")
    ] = None,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("chaos.json"),
) -> int:
    """The study undisturbed, then once with each monkey. Takes about 10 minutes for each."""
    choices = Choices(
        weak=("opt-45k", "opt-230k"),
        student="opt-230k",
        fractions=(Fraction(1, 8),),
        seeds=(0,),
        data=f"world:{pairs}",
        gold=("own",),
        test_pairs=128,
    )
    study, console = Study(choices, max_seeds, train_workers, label_actors), Console()
    monkeys = [int(seed) for seed in seeds.split(",")]
    with tempfile.TemporaryDirectory(prefix="wt-chaos-", dir="/tmp") as temporary:
        # Short: paths of sockets below it may not exceed 107 characters.
        os.environ.update(ENVIRONMENT, RAY_TMPDIR=temporary, TMPDIR=temporary)
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        calm, store = run("undisturbed", study, place, (nodes, cpus), None)
        if max_seeds and calm.sound:
            calm = with_something_decided(calm, store)
        if not calm.sound:
            console.print((place / "undisturbed.log").read_text()[-4000:], markup=False)
            show(console, calm, [])
            return 1
        gap = gap_of(calm.seconds, kills) if gap is None else gap
        console.print(
            f"Undisturbed: {calm.seconds:.0f} s. A kill every {gap:.1f} s.", highlight=False
        )
        runs = []
        for seed in monkeys:
            name = f"seed {seed}"
            console.print(f"\n{name}:", highlight=False)
            monkey = Monkey(seed, kills, gap)
            disturbed, its_store = run(name, study, place, (nodes, cpus), monkey)
            runs.append(compare(store, disturbed, its_store, study.steps(store), kills))
            show(console, calm, runs[-1:])
    show(console, calm, runs)
    facts = {"command": sys.argv, "pairs": pairs, "undisturbed": asdict(calm)}
    out.write_text(json.dumps({**facts, "runs": [asdict(run) for run in runs]}, indent=1))
    return 0 if all(run.sound for run in (calm, *runs)) else 1


if __name__ == "__main__":
    launch(script(main))
