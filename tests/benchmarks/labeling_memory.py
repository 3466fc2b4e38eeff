"""Memory of labeling: the embedded world streamed through the smallest teacher, at several sizes.

    python tests/benchmarks/labeling_memory.py --sizes 10000,100000,1000000

Each size has a process of its own, which reads pairs from the world's generator and labels them
with a teacher that was trained before. Peaks are those of the kernel's own books (VmHWM) for the
driver and for the largest worker, and of the raylet's for the object store. The checksum is of all
labels in the order of their pair ids: two runs with equal checksums have equal labels.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model
from weakteach.preferences.sources import WorldSource
from weakteach.run.terminal import launch, script
from weakteach.steps.data import Pairs
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.study.policies import tokenizers_of
from weakteach.study.presets import EMBEDDED

TEACHER, TEACHER_PAIRS = "opt-45k", 256
MIB = 1 << 20


def teacher() -> Dpo:
    model = find_model(TEACHER)
    labels = HumanLabels(Pairs(WorldSource(TEACHER_PAIRS, seed=1), tokenizers_of(model)).all)
    recipes = EMBEDDED.data.teacher_recipes(str(model))
    return Dpo(Sft(model, labels, recipes.sft, 0), labels, recipes.dpo, 0)


def labels_of(size: int) -> WeakLabels:
    return WeakLabels(teacher(), Pairs(WorldSource(size), tokenizers_of(find_model(TEACHER))).all)


def checksum(file: str) -> str:
    """Of the labels sorted by pair; the table is read here, after the peaks were."""
    table = pq.read_table(file).sort_by("pair_id")
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=8192):
        for row in batch.to_pylist():
            digest.update(json.dumps(list(row.values())).encode())
    return digest.hexdigest()


class Watch:
    """Peaks of this process, of the object store and of the largest Ray worker, in bytes."""

    def __init__(self) -> None:
        self.store_bytes = self.worker_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        self._stop.set()
        self._thread.join()
        peaks = {"driver": high_water(os.getpid()), "object_store": self.store_bytes,
                 "worker": self.worker_bytes}  # fmt: skip
        return {f"{name}_mib": round(peak / MIB, 2) for name, peak in peaks.items()}

    def _follow(self) -> None:
        import ray
        from ray._private.internal_api import node_stats

        me, node = psutil.Process(), ray.nodes()[0]
        place = node["NodeManagerAddress"], node["NodeManagerPort"]
        while not self._stop.wait(0.5):
            used = node_stats(*place, include_memory_info=False).store_stats
            self.store_bytes = max(self.store_bytes, used.object_store_bytes_used)
            for process in me.children(recursive=True):
                try:
                    is_worker = process.cmdline()[0].startswith("ray::")
                    if is_worker:
                        self.worker_bytes = max(self.worker_bytes, high_water(process.pid))
                except (psutil.Error, OSError, IndexError):
                    continue


def high_water(pid: int) -> int:
    """The largest resident size that the process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(storage: str, size: int, actors: int) -> dict[str, Any]:
    """Label so many pairs in this process's Ray."""
    import ray

    from weakteach.run.cluster import start_ray

    resources = Resources(label_actors=actors)
    start_ray(None, 1, resources, verbose=False)
    store, step = Store(storage), labels_of(size)
    watch = Watch()
    reading = time.monotonic()
    pairs = obtain(store, step.part.step)["facts"]
    labeling = time.monotonic()
    facts = obtain(store, step, resources)["facts"]
    done = time.monotonic()
    peaks = watch.stop()
    ray.shutdown()
    file = f"{store.path(step)}/labels.parquet"
    ids = pq.read_table(file, columns=["pair_id"])["pair_id"]
    return {
        "size": size,
        "pairs": pairs["pairs"],
        "rows": facts["rows"],
        "distinct": len(pa.compute.unique(ids)),
        "quarantined": facts["quarantined"],
        "read_pairs_per_second": round(pairs["rows"] / (labeling - reading), 1),
        "label_pairs_per_second": round(facts["rows"] / (done - labeling), 1),
        **peaks,
        "checksum": checksum(file),
    }


def main(
    sizes: Annotated[str, Parameter(help="Pairs drawn.")] = "10000,100000,1000000",
    actors: Annotated[int, Parameter(validator=Number(gte=1))] = 2,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("labeling_memory.json"),
    one: Annotated[str | None, Parameter(show=False)] = None,
) -> None:
    """Memory, rate and checksum of labeling at each size."""
    if one:
        print(json.dumps(measure(one, int(sizes), actors)))
        return
    runs = []
    with tempfile.TemporaryDirectory(prefix="weakteach-") as storage:
        command = [sys.executable, __file__, "--one", storage, "--actors", str(actors), "--sizes"]
        obtain(Store(storage), teacher())
        for size in sizes.split(","):
            run = subprocess.run([*command, size], stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(run.stdout.splitlines()[-1]))
            out.write_text(
                json.dumps({"teacher": TEACHER, "actors": actors, "runs": runs}, indent=1)
            )
    table = Table(title=f"labels of {TEACHER}, {actors} actors", title_justify="left")
    for heading in ("pairs drawn", "pairs", "labels", "read/s", "labeled/s", "driver MiB",
                    "worker MiB", "object store MiB", "peak to first", "checksum"):  # fmt: skip
        table.add_column(heading, justify="right")
    for run in runs:
        table.add_row(
            *(f"{run[name]:,}" for name in ("size", "pairs", "rows")),
            *(f"{run[f'{name}_pairs_per_second']:,.0f}" for name in ("read", "label")),
            *(f"{run[f'{name}_mib']:,.1f}" for name in ("driver", "worker", "object_store")),
            f"{peak(run) / peak(runs[0]):.3f}",
            run["checksum"][:12],
        )
    Console(width=140).print(table)


def peak(run: dict[str, Any]) -> float:
    return run["driver_mib"] + run["worker_mib"] + run["object_store_mib"]


if __name__ == "__main__":
    launch(script(main))
