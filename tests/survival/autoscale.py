"""A study on a cluster that Ray's own autoscaler grows from no worker and shrinks to none again.

    python tests/survival/autoscale.py
    python tests/survival/autoscale.py --nodes 3 --autoscaler v1

Nodes are processes of this machine, made by Ray's fake provider, each with CPUs and one GPU in
Ray's eyes alone: models run on the CPU, but ask for the GPU as they would for a real one. The head
has neither. As the study's trainings and labelings ask for GPUs, nodes come; when it has ended,
and they are idle for as long as the cluster's file says, they go, unless something is parked on
them. Exits with 1 if nodes do not come, do not go, or an arm does not finish.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import psutil
import pyarrow.parquet as pq
from cyclopts import Parameter
from cyclopts.validators import Number
from processes import free_port, kill_family, nothing_left
from rich.console import Console
from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.run.terminal import launch, script

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
HEAD_ID = "f" * 51 + "00000"
SECONDS_TO_START = 300.0
PATIENCE_SECONDS = 2400.0
SECONDS_IDLE = 12.0
# After the idle time: the autoscaler's own rounds, and the end of a node's processes.
SECONDS_TO_GO = 90.0
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
}
HEAD_ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
}
V2_ENVIRONMENT = {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD_ID}


class Autoscaler(StrEnum):
    """Ray has two; KubeRay's clusters run the second."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True)
class Change:
    """So many seconds after the study's start the cluster had so many nodes besides the head."""

    seconds: float
    nodes: int


@dataclass(frozen=True)
class Run:
    """``ended`` is when the study did; ``arms`` and ``done`` are its arms, and those all of whose
    rows are."""

    autoscaler: str
    exit_code: int
    ended: float
    changes: list[Change]
    arms: int
    done: int

    @property
    def most(self) -> int:
        return max(change.nodes for change in self.changes)

    @property
    def to_first(self) -> float | None:
        return next((change.seconds for change in self.changes if change.nodes), None)

    @property
    def to_none(self) -> float | None:
        """Seconds from the study's end to a cluster without workers."""
        last = self.changes[-1]
        return None if last.nodes else max(0.0, last.seconds - self.ended)


def cluster_file(nodes: int, cpus: int, address: str, autoscaler: Autoscaler) -> dict[str, Any]:
    """What ``ray up`` reads, for nodes that are processes."""
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "gcs_address": address,
    }
    if autoscaler is Autoscaler.V2:
        provider |= {"launch_multiple": True, "head_node_id": HEAD_ID}
    return {
        "cluster_name": "survival",
        "max_workers": nodes,
        "idle_timeout_minutes": SECONDS_IDLE / 60,
        "upscaling_speed": 1.0,
        "provider": provider,
        "available_node_types": {
            # The fake provider calls it so, whatever this file says.
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": cpus, "GPU": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": nodes,
            },
        },
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "auth": {},
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def head(folder: Path, nodes: int, cpus: int, autoscaler: Autoscaler) -> Iterator[str]:
    """The address of a running head with its autoscaler."""
    port = free_port()
    address = f"{LOOPBACK}:{port}"
    file = folder / "cluster.json"
    file.write_text(json.dumps(cluster_file(nodes, cpus, address, autoscaler)))
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        f"--node-ip-address={LOOPBACK}", f"--port={port}", "--num-cpus=0", "--num-gpus=0",
        "--include-dashboard=false", f"--autoscaling-config={file}",
    ]  # fmt: skip
    extra = HEAD_ENVIRONMENT | (V2_ENVIRONMENT if autoscaler is Autoscaler.V2 else {})
    with (folder / "head.log").open("wb") as log:
        process = psutil.Popen(
            command, env=os.environ | extra, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield address
        finally:
            process.terminate()
            try:
                process.wait(30)
            except psutil.TimeoutExpired:
                kill_family(process)


def connect(address: str) -> None:
    """Watch the cluster as a driver of its own. Raises ConnectionError if there is none."""
    import ray  # reads the environment when it is imported

    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


class Watch:
    """Counts the nodes besides the head, and notes when their number changes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.changes = [Change(0.0, self.now())]

    @staticmethod
    def now() -> int:
        import ray

        return sum(node["Alive"] for node in ray.nodes()) - 1

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def look(self) -> int:
        nodes = self.now()
        if nodes != self.changes[-1].nodes:
            self.changes.append(Change(self.seconds, nodes))
        return nodes


def study(storage: Path, address: str, arms: int, pairs: int) -> list[str]:
    options = {
        "--storage": storage,
        "--data": f"world:{pairs}",
        "--test-pairs": 64,
        "--weak": "opt-45k",
        "--student": "opt-45k",
        "--students": "opt-45k",
        "--fractions": "1/2",
        "--seeds": ",".join(map(str, range(arms))),
        "--gold": "own",
        "--train-workers": 1,
        "--label-actors": 1,
        "--gpus": 1,
        "--max-concurrent": arms,
        "--address": address,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "sweeps/student_size.py", *words, "--verbose"]


def run(folder: Path, nodes: int, cpus: int, pairs: int, autoscaler: Autoscaler) -> Run:
    import ray  # as above

    storage = folder / "store"
    with (
        head(folder, nodes, cpus, autoscaler) as address,
        (folder / "study.log").open("wb") as log,
    ):
        connect(address)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # Ray has one of its own
        watch = Watch()
        driver = start(study(storage, address, nodes, pairs), log)
        try:
            while driver.poll() is None:
                watch.look()
                if watch.seconds > PATIENCE_SECONDS:
                    raise UserError(f"not done after {PATIENCE_SECONDS:g} s")
                time.sleep(0.5)
            ended = watch.seconds
            while watch.look() and watch.seconds < ended + SECONDS_IDLE + SECONDS_TO_GO:
                time.sleep(0.5)
        finally:
            kill_family(driver)
            ray.shutdown()
    rows = pq.read_table(storage / "studies" / "student_size" / "results.parquet").to_pylist()
    arms = {row["arm"] for row in rows}
    undone = {row["arm"] for row in rows if row["status"] != "done"}
    return Run(autoscaler, driver.returncode, ended, watch.changes, len(arms), len(arms - undone))


def start(command: list[str], log: IO[bytes]) -> psutil.Popen:
    return psutil.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def problems(of: Run, nodes: int, left: list[str]) -> list[str]:
    """What should have been otherwise."""
    found = []
    if of.changes[0].nodes:
        found.append(f"{of.changes[0].nodes} nodes were there before the study")
    if of.most < nodes:
        found.append(f"{of.most} of {nodes} nodes came")
    if of.to_none is None:
        found.append(f"{of.changes[-1].nodes} nodes did not go")
    if of.exit_code or of.done < of.arms or of.arms < nodes:
        found.append(f"{of.done} of {of.arms} arms finished, exit code {of.exit_code}")
    if left:
        found.append(f"processes are left: {', '.join(left)}")
    return found


def show(console: Console, of: Run, nodes: int) -> None:
    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.0f} s"

    table = Table(title=f"Ray's autoscaler {of.autoscaler}, fake nodes with a GPU each")
    for heading in ("", "value"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("nodes before", str(of.changes[0].nodes))
    table.add_row("first node after", seconds(of.to_first))
    table.add_row("most nodes", f"{of.most} of {nodes}")
    table.add_row("arms finished", f"{of.done} of {of.arms}")
    table.add_row("study", seconds(of.ended))
    table.add_row(f"none again after its end (idle time {SECONDS_IDLE:g} s)", seconds(of.to_none))
    console.print(table)
    console.print(
        "Nodes over time: ", ", ".join(f"{c.nodes} at {c.seconds:.0f} s" for c in of.changes)
    )


def main(
    nodes: Annotated[
        int, Parameter(help="Most nodes; as many arms run.", validator=Number(gte=1))
    ] = 2,
    cpus: Annotated[
        int, Parameter(help="CPUs of each in Ray's eyes.", validator=Number(gte=1))
    ] = 2,
    pairs: Annotated[
        int, Parameter(help="Pairs of the embedded world.", validator=Number(gte=100))
    ] = 300,
    autoscaler: Annotated[Autoscaler, Parameter(help="Which of Ray's two.")] = Autoscaler.V2,
    folder: Annotated[
        Path | None, Parameter(help="Where store and logs stay; a temporary one without it.")
    ] = None,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("autoscale.json"),
) -> int:
    """Arms that train and label on nodes with GPUs, which come and go. Takes some minutes."""
    console = Console()
    # Short: paths of sockets below it may not exceed 107 characters.
    with tempfile.TemporaryDirectory(prefix="wt-scale-", dir="/tmp") as temporary:
        os.environ.update(ENVIRONMENT, RAY_TMPDIR=temporary, TMPDIR=temporary)
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        with nothing_left(temporary) as left:
            of = run(place, nodes, cpus, pairs, autoscaler)
    show(console, of, nodes)
    found = problems(of, nodes, left)
    out.write_text(json.dumps(asdict(of) | {"command": sys.argv, "problems": found}, indent=1))
    for problem in found:
        console.print(f"not so: {problem}", markup=False)
    return 1 if found else 0


if __name__ == "__main__":
    launch(script(main))
