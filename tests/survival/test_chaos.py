"""What the survival commands rest on; the commands at their shortest are slow tests."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from autoscale import Autoscaler, Change, Run, cluster_file, problems
from checks import differing, leases, leftovers
from monkey import Monkey, gap_of
from processes import at_work, kill_family, kind_of, nothing_left, of_run

from weakteach.artifacts.store import Store

ROOT = Path(__file__).parents[2]
# A process and one below it.
WORKER = "sleep 600 & echo up; wait"


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Start a worker with a title, as one of a run whose folder is the test's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = []

    def start(title):
        process = psutil.Popen(
            [title, "-c", WORKER], executable="/bin/sh", stdout=subprocess.PIPE, text=True
        )
        found.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in found:
        kill_family(process)
        process.wait()
        process.stdout.close()


def strikes(seed, kills=40):
    """A monkey among victims that never die, without a wait."""
    monkey, struck = Monkey(seed, kills, gap=0.0, start=0.0), []
    while monkey.due:
        victims = {"trial": "abc", "node": "xy", "label task": ""}
        monkey.strike(victims, lambda kind, victim: struck.append((kind, victim)) or victim)
    return struck


def test_a_monkey_kills_what_its_seed_says_and_each_kind_as_often():
    assert strikes(1) == strikes(1)
    assert strikes(1) != strikes(2)
    assert Counter(kind for kind, _ in strikes(1)) == {"trial": 20, "node": 20}


def test_kills_come_within_the_time_that_a_study_takes():
    assert gap_of(150, 30) == pytest.approx(3.5)
    assert gap_of(150, 6) == pytest.approx(17.5)
    assert gap_of(10, 30) == 0.5


def test_a_victim_that_was_gone_does_not_count():
    monkey = Monkey(0, 1, gap=0.0, start=0.0)
    assert monkey.strike({"trial": "a"}, lambda kind, victim: None) is None
    assert monkey.strike({"trial": ""}, lambda kind, victim: victim) is None
    assert monkey.due
    assert monkey.strike({"trial": "a"}, lambda kind, victim: victim).kind == "trial"
    assert not monkey.due


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("ray::ImplicitFunc.train", "trial"),
        ("ray::TrainController.run", "train controller"),
        ("ray::RayTrainWorker", "train worker"),
        ("ray::Holder.make", "label actor"),
        ("ray::MapBatches(prepare_shards)", "prepare task"),
        ("ray::MapBatches(make_shards)", "label task"),
        ("ray::MapBatches(prepare_shards)->MapBatches(make_shards)", "label task"),
        ("ray::IDLE", None),
        ("ray::_StatsActor", None),
        ("python sweeps/size_grid.py", None),
    ],
)
def test_victims_are_known_by_their_titles(title, kind):
    assert kind_of(title) == kind


def test_processes_of_a_run_are_found_and_no_others(worker, tmp_path):
    mine = worker("ray::MapBatches(make_shards)")
    assert mine.pid in {process.pid for process in of_run(str(tmp_path))}
    # Twice while its child is there and has not begun another program yet.
    assert set(at_work(str(tmp_path))) == {f"ray::MapBatches(make_shards) -c {WORKER}"}
    assert of_run(str(tmp_path / "another")) == []


def test_a_family_is_killed_with_its_head(worker, tmp_path):
    head = worker("ray::IDLE")
    family = [head, *head.children(recursive=True)]
    assert len(family) == 2
    assert kill_family(head)
    head.wait()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert not kill_family(head)


def test_what_outlives_a_run_is_told_and_ended(worker, tmp_path):
    with nothing_left(str(tmp_path), seconds=0.5) as left:
        process = worker("ray::ImplicitFunc.train")
    assert f"ray::ImplicitFunc.train -c {WORKER}" in left
    process.wait(20)


def test_a_difference_of_one_byte_a_lease_and_half_an_artifact_are_seen(tmp_path):
    assert differing({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"x", "d": b"4"}) == [
        "b",
        "c",
        "d",
    ]
    for path in (".leases/Sft-1", "Sft/.1.ab.stage/x", "Sft/.1.scratch/x", "studies/.r.partial"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    store = Store(tmp_path)
    assert leases(store) == ["Sft-1"]
    assert leftovers(store) == ["Sft/.1.ab.stage", "Sft/.1.scratch", "studies/.r.partial"]


@pytest.mark.parametrize("command", ["chaos", "autoscale"])
def test_help_needs_no_ray(command):
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-X", "importtime", f"tests/survival/{command}.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    assert "--nodes" in run.stdout
    assert "| ray\n" not in run.stderr
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("workers", "actors"), [(0, 0), (1, 1)])
def test_a_study_survives_some_kills(tmp_path, workers, actors):
    subprocess.run(
        [sys.executable, "tests/survival/chaos.py", "--kills", "6", "--pairs", "300",
         "--train-workers", str(workers), "--label-actors", str(actors),
         "--out", str(tmp_path / "chaos.json")],
        cwd=ROOT, check=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nodes_come_and_go(tmp_path):
    subprocess.run(
        [sys.executable, "tests/survival/autoscale.py", "--out", str(tmp_path / "scale.json")],
        cwd=ROOT, check=True,
    )  # fmt: skip


@pytest.mark.parametrize("autoscaler", Autoscaler)
def test_the_autoscaled_clusters_file_is_what_ray_reads(autoscaler):
    from ray.autoscaler._private.util import validate_config

    validate_config(cluster_file(2, 2, "127.0.0.1:6379", autoscaler))


def ended(changes, done=2, exit_code=0):
    return Run("v2", exit_code, 100.0, [Change(*change) for change in changes], 2, done)


def test_nodes_that_stay_and_arms_that_do_not_finish_are_problems():
    assert problems(ended([(0, 0), (9, 1), (12, 2), (120, 0)]), 2, []) == []
    assert problems(ended([(0, 0), (9, 2), (120, 1)]), 2, []) == ["1 nodes did not go"]
    assert problems(ended([(0, 0), (9, 1), (120, 0)]), 2, []) == ["1 of 2 nodes came"]
    assert problems(ended([(0, 0), (9, 2), (120, 0)], done=1), 2, []) == [
        "1 of 2 arms finished, exit code 0"
    ]
    assert problems(ended([(0, 0), (9, 2), (120, 0)]), 2, ["raylet"]) == [
        "processes are left: raylet"
    ]
