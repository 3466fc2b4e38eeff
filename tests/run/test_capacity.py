"""Nodes, cards and disks that cannot hold what steps take of them, each told with its remedy."""

from pathlib import Path

import pytest
from ray_up import CLUSTER
from rich.console import Console

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import GIB, Resources
from weakteach.run.capacity import check_cluster, check_disk, check_memory
from weakteach.run.nodes import NodeType, nodes_of_file, nodes_of_ray
from weakteach.run.preflight import problem_table
from weakteach.study.presets import MODERN, PAPER

ROOT = Path(__file__).parents[2]


def nodes(tmp_path):
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return nodes_of_file(tmp_path / "cluster.yaml")


CLUSTERS = [
    (Resources(train_workers=1, gpus=1, gpu_type="H100"), "no node has a H100 GPU"),
    (Resources(train_workers=1, gpus=1, gpu_type="L4", cpus=16), "16 CPUs for one worker"),
    (Resources(train_workers=12, gpus=1, gpu_type="L4"), "12 workers are asked for"),
    (Resources(label_actors=17, gpus=1, gpu_type="A100"), "17 workers are asked for"),
]


@pytest.mark.parametrize(("resources", "sentence"), CLUSTERS, ids=lambda x: str(x)[:12])
def test_a_cluster_that_can_never_place_a_worker_is_told(tmp_path, resources, sentence):
    (problem,) = check_cluster("cluster.yaml", nodes(tmp_path), resources)
    assert sentence in problem.what


def test_labeling_actors_must_leave_a_cpu_to_tokenize_for_them():
    nodes = [NodeType("a", {"CPU": 4.0, "GPU": 4.0}, 2)]
    (problem,) = check_cluster("ray", nodes, Resources(label_actors=8, gpus=1))
    assert "labeling actors take all 8 CPUs" in problem.what
    for fits in (Resources(label_actors=7, gpus=1), Resources(label_actors=8, gpus=1, cpus=0.5)):
        assert not check_cluster("ray", nodes, fits)


def test_clusters_that_fit(tmp_path):
    for resources in (
        Resources(),
        Resources(train_workers=8, label_actors=8, gpus=1, gpu_type="L4", cpus=8),
        Resources(train_workers=16, gpus=1, gpu_type="A100"),
        Resources(label_actors=48, gpus=0.5),
    ):
        assert not check_cluster("cluster.yaml", nodes(tmp_path), resources)
    alive = [{"Alive": True, "NodeName": "a", "Resources": {"CPU": 4.0}}, {"Alive": False}]
    assert nodes_of_ray(alive) == [NodeType("a", {"CPU": 4.0}, 1)]
    (problem,) = check_cluster("ray", nodes_of_ray(alive), Resources(label_actors=1, gpus=1))
    assert "no node has 1 GPUs" in problem.what
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="no cluster file of ray up"):
        nodes_of_file(tmp_path / "other.yaml")


@pytest.mark.parametrize("file", ["aws.yaml", "gcp.yaml", "azure.yaml", "kuberay/raycluster.yaml"])
@pytest.mark.parametrize("preset", [PAPER, MODERN], ids=lambda preset: preset.name)
def test_the_clusters_that_come_along_hold_what_presets_for_gpus_ask_for(file, preset):
    found = nodes_of_file(ROOT / "cluster" / file)
    assert any(node.resources.get("GPU") for node in found)
    assert not check_cluster(file, found, preset.resources)


def test_steps_that_do_not_fit_their_device_are_told():
    steps = [("Sft of opt-6.7b", 127 * GIB, "shards"), ("WeakLabels", 22 * GIB, "less")]
    (problem,) = check_memory(steps, Resources(gpus=1, gpu_type="A100"))
    assert (problem.where, "40 GiB" in problem.what) == ("Sft of opt-6.7b", True)
    assert problem.remedy == "shards"
    (_, second) = check_memory(steps, Resources(gpus=0.5, gpu_type="A100"))
    assert second.remedy == "less"
    assert not check_memory(steps, Resources(gpus=1, gpu_type="A100"), gib=141)
    assert not check_memory(steps, Resources())


def test_a_full_disk_is_told():
    (problem,) = check_disk("runs", 10 * GIB, 1500 * GIB)
    assert problem.what == "about 1,500 GiB will be written, and 10 GiB are free"
    assert not check_disk("runs", 10 * GIB, 9 * GIB)
    console = Console(width=100, record=True)
    console.print(problem_table([problem]))
    assert "another --storage" in console.export_text()
