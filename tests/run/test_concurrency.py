"""How many arms run at a time on machines and clusters of given sizes."""

from dataclasses import replace

import pytest

from weakteach.models.resources import Resources
from weakteach.run import concurrency
from weakteach.run.concurrency import GIB, on_cluster, planned

PAPER = Resources(train_workers=4, label_actors=4, gpus=1, cpus=4)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets the cores and the memory of this machine, and the limits of its container."""
    monkeypatch.setattr(concurrency, "CGROUP", tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def of(cores, gib, **limits):
        monkeypatch.setattr(concurrency.os, "sched_getaffinity", lambda _: set(range(cores)))
        total = type("Memory", (), {"total": gib * GIB})
        monkeypatch.setattr(concurrency.psutil, "virtual_memory", lambda: total)
        for name, limit in limits.items():
            (tmp_path / name.replace("_", ".")).write_text(f"{limit}\n")

    return of


@pytest.mark.parametrize(
    ("cores", "gib", "limits", "resources", "said"),
    [
        (16, 64, {}, Resources(), "16 arms at a time: 16 cores"),
        (16, 64, {}, Resources(threads=4), "4 arms at a time: 16 cores"),
        (16, 64, {}, Resources(threads=2, label_tasks=4), "2 arms at a time: 16 cores"),
        (16, 8, {}, Resources(), "4 arms at a time: 8 GiB of memory"),
        (1, 1, {}, Resources(), "1 arm at a time: 1 GiB of memory"),
        (1, 64, {}, Resources(threads=2), "1 arm at a time: 1 core"),
        (64, 64, {"cpu_max": "400000 100000"}, Resources(), "4 arms at a time: 4 cores"),
        (64, 64, {"cpu_max": "max 100000"}, Resources(threads=8), "8 arms at a time: 64 cores"),
        (64, 64, {"memory_max": 6 * GIB}, Resources(), "3 arms at a time: 6 GiB of memory"),
    ],
)
def test_a_machine_runs_as_many_arms_as_it_has_cores_and_memory_for(
    machine, cores, gib, limits, resources, said
):
    machine(cores, gib, **limits)
    assert str(planned(None, None, resources)) == said


def test_what_the_user_asks_for_wins_and_a_cluster_is_asked_when_it_is_joined(machine, monkeypatch):
    machine(16, 64)
    assert planned(3, "auto", PAPER).arms == planned(3, None, PAPER).arms == 3
    assert planned(None, "10.0.0.1:6379", PAPER) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert planned(None, None, PAPER) is None


@pytest.mark.parametrize(
    ("cpus", "gpus", "head", "said"),
    [
        (512, 64, 64, "16 arms at a time: the cluster has 64 GPUs"),
        (200, 64, 64, "10 arms at a time: the cluster has 200 CPUs"),
        (512, 0, 64, "8 arms at a time: the cluster has 0 GPUs, and may grow"),
        (512, 64, 3, "6 arms at a time: the head has 3 GiB of memory"),
    ],
)
def test_a_cluster_runs_as_many_arms_as_it_has_devices_for(cpus, gpus, head, said):
    assert str(on_cluster(PAPER, cpus, gpus, head * GIB)) == said


def test_workers_that_ask_for_no_cpu_count_as_one_each():
    many = Resources(train_workers=4, label_tasks=2, cpus=0)
    assert str(on_cluster(many, 64, 0, 64 * GIB)) == "16 arms at a time: the cluster has 64 CPUs"


def test_what_may_grow_counts_as_it_begins():
    growing = replace(
        PAPER, train_workers=1, train_workers_max=4, label_actors=1, label_actors_max=4
    )
    assert on_cluster(growing, 512, 64, 64 * GIB).arms == 64
