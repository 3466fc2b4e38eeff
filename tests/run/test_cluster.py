"""How many arms run at a time on a cluster of a given size, and what they are told."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import tune
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.worker import _merge_runtime_env
from ray.autoscaler._private.util import format_readonly_node_type
from ray.experimental.internal_kv import _internal_kv_get

from sweeps.size_grid import size_grid
from weakteach.models.resources import Resources
from weakteach.run import cluster
from weakteach.run.cluster import ClusterError, Joined, arms_at_once, grows, what_waits
from weakteach.run.concurrency import AtOnce
from weakteach.run.nodes import NodeType

ROOT = Path(__file__).parents[2]
HERE, THERE = Joined(by_address=False), Joined(by_address=True)


def test_trials_that_train_leave_cpus_for_their_labeling(ray_here):
    """The Ray of tests has 4 CPUs; a trial takes one, and one for each task that labels."""
    nine = AtOnce(9, "as asked for")
    assert str(arms_at_once(HERE, nine, Resources())) == "2 arms at a time: Ray has 4 CPUs"
    assert arms_at_once(HERE, None, Resources()).arms == 2
    assert str(arms_at_once(HERE, AtOnce(1, "as asked for"), Resources())) == (
        "1 arm at a time: as asked for"
    )
    assert arms_at_once(HERE, nine, Resources(label_tasks=3)).arms == 1
    assert arms_at_once(HERE, nine, Resources(train_workers=1)) == nine


def test_a_trial_with_gpus_leaves_cpus_to_tokenize_on():
    assert cluster._cpus_of_a_trial(Resources(label_actors=2, cpus=3)) == 1 + 2 * 3
    assert cluster._cpus_of_a_trial(Resources(label_actors=2, cpus=3, gpus=1)) == 1 + 2 * (3 + 1)


def status(*kinds):
    """As Ray's monitor writes it into Ray's store."""
    return json.dumps({"autoscaler_report": {"active_nodes": dict.fromkeys(kinds, 1)}}).encode()


def told_by_ray(monkeypatch, *statuses):
    found = itertools.chain(statuses, itertools.repeat(statuses[-1]))
    monkeypatch.setattr(cluster, "_internal_kv_get", lambda key: next(found))


GPUS = Resources(train_workers=2, gpus=1)
FIXED = status(format_readonly_node_type("0a" * 28))


@pytest.mark.parametrize(
    ("joined", "found"),
    [(HERE, None), (HERE, FIXED), (THERE, FIXED)],
    ids=["new", "here", "there"],
)
def test_what_stays_too_small_for_an_arm_is_an_error(ray_here, monkeypatch, joined, found):
    told_by_ray(monkeypatch, found)
    with pytest.raises(ClusterError, match="has 4 CPUs, but an arm needs 5"):
        arms_at_once(joined, None, Resources(label_tasks=4), patience=0.5)
    with pytest.raises(ClusterError, match=r"has 0 GPUs, but an arm needs 2: with --gpus 0\.5"):
        arms_at_once(joined, None, Resources(gpus=1))


@pytest.mark.parametrize("found", [None, status("head")], ids=["unknown", "grows"])
def test_one_arm_asks_a_cluster_for_nodes_that_may_start_them(ray_here, monkeypatch, found):
    told_by_ray(monkeypatch, found)
    for wanted in (None, AtOnce(9, "as asked for")):
        said = str(arms_at_once(THERE, wanted, Resources(gpus=1), patience=60))
        assert said.startswith(
            "1 arm at a time: Ray has 0 GPUs, but an arm needs 2; it waits until"
        )
        assert said.endswith(cluster.ADVICE["GPU"])


@pytest.mark.parametrize("found", [None, status("head")], ids=["unknown", "grows"])
def test_what_nodes_do_not_hold_is_told_where_more_may_join(ray_here, monkeypatch, found):
    told_by_ray(monkeypatch, found)
    (line,) = what_waits(THERE, GPUS)
    assert "no node has 1 GPUs" in line
    assert "waits until more nodes join" in line
    (line,) = what_waits(THERE, Resources(train_workers=5))
    assert "5 workers are asked for, and all nodes together hold 4" in line


def test_what_nodes_can_never_hold_is_refused_on_this_machine(ray_here):
    with pytest.raises(ClusterError, match="On this machine no node has 1 GPUs"):
        what_waits(HERE, GPUS)
    assert not what_waits(HERE, Resources(train_workers=4))


def test_whether_a_cluster_grows_is_told_by_the_names_of_its_nodes():
    node = format_readonly_node_type("0a" * 28)
    assert grows(status(node, format_readonly_node_type("f1" * 28))) is False
    assert grows(status("head")) is grows(status(node, "ray.worker.default")) is True
    nothing = json.dumps({"autoscaler_report": None}).encode()
    assert {grows(found) for found in (None, b"{}", nothing, status())} == {None}


@pytest.fixture
def fixed(ray_here):
    """A cluster without autoscaler whose monitor has told so: the Ray of tests."""
    give_up = time.monotonic() + 60
    while grows(_internal_kv_get(DEBUG_AUTOSCALING_STATUS)) is None:
        assert time.monotonic() < give_up, "Ray's monitor has not told of any node"
        time.sleep(0.1)


def test_what_a_cluster_can_never_hold_that_starts_no_nodes_is_refused(fixed):
    with pytest.raises(ClusterError, match="starts no nodes by itself, no node has 1 GPUs"):
        what_waits(THERE, GPUS)
    assert not what_waits(THERE, Resources(train_workers=4))


def test_a_node_that_was_just_lost_is_waited_for(monkeypatch):
    lost, back = [NodeType("a", {"CPU": 1.0}, 1)], [NodeType("a", {"CPU": 4.0}, 1)]
    found = iter([lost, lost, back])
    monkeypatch.setattr(cluster, "nodes_now", lambda: next(found))
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    told_by_ray(monkeypatch, FIXED)
    assert what_waits(THERE, Resources(train_workers=4), patience=60) == []


@pytest.mark.parametrize(
    "of_job",
    [
        None,
        {},
        {"env_vars": {"OMP_NUM_THREADS": "8", "HF_TOKEN": "x"}, "pip": ["a"]},
        {"env_vars": dict.fromkeys(cluster.WORKER_ENVIRONMENT, "1")},
    ],
    ids=["no job", "plain", "threads", "all"],
)
def test_a_job_that_sets_variables_of_workers_joins_its_cluster(monkeypatch, of_job):
    of_job, told = of_job or {}, {}
    job_config = {"runtime_env": of_job, "metadata": {}}
    monkeypatch.setattr(os, "environ", {**os.environ, **of_job.get("env_vars", {})})
    monkeypatch.setitem(os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job_config))

    def init(**options):
        told.update(options)
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster, "ray_address", lambda address: (address, "--address"))
    assert cluster.start_ray("head:6379", 1, Resources(threads=2), verbose=False).by_address
    merged = _merge_runtime_env(of_job, told["runtime_env"])
    assert merged is not None  # which is a conflict to Ray
    variables = merged["env_vars"]
    assert set(variables) == {*cluster.WORKER_ENVIRONMENT, "OMP_NUM_THREADS"} | set(
        of_job.get("env_vars", {})
    )
    assert of_job.get("env_vars", {}).items() <= variables.items()


def test_a_check_looks_at_the_cluster_and_leaves_it(fixed, ray_address, tmp_path):
    done = subprocess.run(
        [sys.executable, "sweeps/size_grid.py", "--storage", str(tmp_path), "--seeds", "0",
         "--check", "--address", ray_address, "--gpus", "1", "--train-workers", "1"],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "which starts no nodes by itself, no node has 1 GPUs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_of_a_cluster_that_holds_the_run(ray_here, ray_address, tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(cluster, "start_ray", lambda *_: Joined(by_address=True))
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: left.append(True))
    words = ["--storage", str(tmp_path), "--seeds", "0", "--check", "--address", ray_address]
    assert size_grid.run([*words, "--train-workers", "1"]) == 0
    assert left == [True]
    assert not list(tmp_path.glob("*/*/record.json"))


def test_trials_are_not_told_the_keys_of_the_driver(ray_here, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sentinel")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "1")

    def told_environment(config):
        tune.report({"told": str(ray.get_runtime_context().runtime_env)})

    run = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
    told = tune.Tuner(told_environment, run_config=run).fit()[0].metrics["told"]
    assert "RAY_CHDIR_TO_TRIAL_DIR" in told  # what Tune hands on of its own does arrive
    assert "sentinel" not in told


SLOW_TO_COME_UP = """
import ray
from weakteach.models.resources import Resources
from weakteach.run.cluster import STARTS, start_ray

start, tries = ray.init, []

def init(**options):
    tries.append(options)
    if len(tries) < STARTS:
        raise Exception("The current node timed out during startup.")
    return start(**options)

ray.init = init
joined = start_ray(None, 1, Resources(), verbose=False)
print(len(tries), ray.is_initialized(), joined)
"""


@pytest.mark.slow
@pytest.mark.ci
def test_a_ray_that_does_not_come_up_in_time_is_started_again():
    command = [sys.executable, "-c", SLOW_TO_COME_UP]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"{cluster.STARTS} True {Joined(by_address=False)}\n"


WITH_A_DASHBOARD = """
from urllib.request import ProxyHandler, build_opener
from weakteach.models.resources import Resources
from weakteach.run.cluster import start_ray

joined = start_ray(None, 1, Resources(), verbose=False, dashboard=True)
answer = build_opener(ProxyHandler({})).open(f"{joined.dashboard}/api/version", timeout=60)
print(joined.by_address, joined.dashboard, answer.status)
"""


@pytest.mark.slow
def test_a_dashboard_that_was_asked_for_answers_on_this_machine_alone():
    command = [sys.executable, "-c", WITH_A_DASHBOARD]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    joined, url, status = run.stdout.split()
    assert (joined, status) == ("False", "200")
    assert url.startswith("http://127.0.0.1:")
