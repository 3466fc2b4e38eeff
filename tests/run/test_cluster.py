"""How many arms run at a time on a cluster of a given size, and what they are told."""

import subprocess
import sys

import pytest
import ray
from ray import tune

from weakteach.models.resources import Resources
from weakteach.run import cluster
from weakteach.run.cluster import ClusterError, Joined, arms_at_once, what_waits
from weakteach.run.concurrency import AtOnce


def test_trials_that_train_leave_cpus_for_their_labeling(ray_here):
    """The Ray of tests has 4 CPUs; a trial takes one, and one for each task that labels."""
    nine = AtOnce(9, "as asked for")
    assert str(arms_at_once(nine, Resources())) == "2 arms at a time: Ray has 4 CPUs"
    assert arms_at_once(None, Resources()).arms == 2
    assert str(arms_at_once(AtOnce(1, "as asked for"), Resources())) == (
        "1 arm at a time: as asked for"
    )
    assert arms_at_once(nine, Resources(label_tasks=3)).arms == 1
    assert arms_at_once(nine, Resources(train_workers=1)) == nine


def test_a_trial_with_gpus_leaves_cpus_to_tokenize_on():
    assert cluster._cpus_of_a_trial(Resources(label_actors=2, cpus=3)) == 1 + 2 * 3
    assert cluster._cpus_of_a_trial(Resources(label_actors=2, cpus=3, gpus=1)) == 1 + 2 * (3 + 1)


def test_a_cluster_that_stays_too_small_for_an_arm_is_an_error(ray_here):
    with pytest.raises(ClusterError, match="has 4 CPUs, but an arm needs 5"):
        arms_at_once(None, Resources(label_tasks=4), patience=0.5)
    with pytest.raises(ClusterError, match=r"has 0 GPUs, but an arm needs 2: with --gpus 0\.5"):
        arms_at_once(None, Resources(gpus=1))


def test_what_nodes_can_never_hold_is_refused_here_and_told_on_a_cluster(ray_here):
    asked = Resources(train_workers=2, gpus=1)
    with pytest.raises(ClusterError, match="On this machine no node has 1 GPUs"):
        what_waits(Joined(by_address=False), asked)
    (line,) = what_waits(Joined(by_address=True), asked)
    assert "no node has 1 GPUs" in line
    assert "waits until more nodes join" in line
    assert not what_waits(Joined(by_address=False), Resources(train_workers=4))
    (line,) = what_waits(Joined(by_address=True), Resources(train_workers=5))
    assert "5 workers are asked for, and all nodes together hold 4" in line


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
start_ray(None, 1, Resources(), verbose=False)
print(len(tries), ray.is_initialized())
"""


def test_a_ray_that_does_not_come_up_in_time_is_started_again():
    command = [sys.executable, "-c", SLOW_TO_COME_UP]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"{cluster.STARTS} True\n"
