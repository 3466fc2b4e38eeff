"""A large labeling whose actors and driver are killed ends as if nothing had happened."""

import shutil
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.training.recipes import DpoRecipe, Schedule, SftRecipe

PAIRS = 100_000
PATIENCE_SECONDS = 1800


def labels_of(size):
    model = find_model("opt-45k")
    few = HumanLabels(Pairs(WorldSource(200, seed=9), (tokenizer_of(model),)).all)
    sft = Sft(model, few, SftRecipe(Schedule(1e-3, batch=16)), seed=0)
    teacher = Dpo(sft, few, DpoRecipe(Schedule(1e-3, batch=16), beta=0.2), seed=0)
    return WeakLabels(teacher, Pairs(WorldSource(size), (tokenizer_of(model),)).all)


def label(storage, size):
    """What the driver's process does."""
    from weakteach.run.cluster import start_ray

    resources = Resources(label_actors=2)
    start_ray(None, 1, resources, verbose=False)
    obtain(Store(storage), labels_of(int(size)), resources)


def driver(storage):
    return psutil.Popen([sys.executable, __file__, str(storage), str(PAIRS)])


def shards_of(store):
    return list(Path(store.root).glob("WeakLabels/.*.scratch/shards/[0-9]*.parquet"))


def wait_for_shards(store, count, process):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(shards_of(store)) < count:
        assert process.poll() is None, "the labeling ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_an_actor(process):
    actors = [
        p for p in process.children(recursive=True) if "ray::Holder.make" in " ".join(p.cmdline())
    ]
    actors[0].kill()
    actors[0].wait()


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE_SECONDS)
def test_kills_of_actors_and_driver_change_no_label_and_lose_no_shard(tmp_path):
    calm, killed = Store(tmp_path / "calm"), Store(tmp_path / "killed")
    step = labels_of(PAIRS)
    for read in step.inputs:
        obtain(calm, read)
    shutil.copytree(calm.root, killed.root, dirs_exist_ok=True)
    assert driver(calm.root).wait() == 0

    first = driver(killed.root)
    for count in (50, 100, 200):
        wait_for_shards(killed, count, first)
        kill_an_actor(first)
    wait_for_shards(killed, 250, first)
    family = first.children(recursive=True)
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive
    finished = {path: path.stat().st_mtime_ns for path in shards_of(killed)}
    assert len(finished) >= 250

    second = driver(killed.root)
    wait_for_shards(killed, len(finished) + 30, second)
    kill_an_actor(second)
    wait_for_shards(killed, len(finished) + 60, second)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert second.wait() == 0

    tables = [pq.read_table(f"{store.path(step)}/labels.parquet") for store in (calm, killed)]
    assert tables[0].equals(tables[1], check_metadata=True)
    labeled = tables[1]["pair_id"].to_pylist()
    pairs = step.part.read(killed, ["pair_id"])["pair_id"].to_pylist()
    assert labeled == pairs
    assert len(set(labeled)) == len(labeled)
    assert killed.record(step)["facts"] == {"rows": len(pairs), "quarantined": 0}


if __name__ == "__main__":
    label(*sys.argv[1:])
