"""Nodes, cards and disks that cannot hold what steps take of them, each told with its remedy."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray_up import CLUSTER
from rich.console import Console

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.models.resources import GIB, Resources
from weakteach.run.capacity import (
    Host,
    check_cluster,
    check_disk,
    check_host_memory,
    check_memory,
    hosts_of,
)
from weakteach.run.fit import Footprint
from weakteach.run.nodes import NodeType, nodes_of_file, nodes_of_ray
from weakteach.run.options import Cluster
from weakteach.run.preflight import problem_table
from weakteach.run.readiness import Taken, check_run
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
    set_aside = {"CPU": 4.0, "memory": 7e9, "object_store_memory": 3e9}
    (node,) = nodes_of_ray([{"Alive": True, "NodeName": "a", "Resources": set_aside}])
    assert node.memory == 1e10
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


def test_disks_whose_size_is_not_told_are_left_out(tmp_path):
    described = yaml.safe_load(CLUSTER)
    kinds = described["available_node_types"]
    local, sized = {"VirtualName": "ephemeral0"}, {"Ebs": {"VolumeSize": 600}}
    kinds["l4"]["node_config"] = {"BlockDeviceMappings": [local, sized]}
    kinds["a100"]["node_config"] = {"disks": [{"type": "SCRATCH"}]}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(described))
    found = {node.name: node.disk for node in nodes_of_file(tmp_path / "cluster.yaml")}
    assert found == {"head": None, "l4": 600 * GIB, "a100": None}


def test_steps_that_do_not_fit_their_device_are_told():
    steps = [("Sft of opt-6.7b", 127 * GIB, "shards"), ("WeakLabels", 22 * GIB, "less")]
    (problem,) = check_memory(steps, Resources(gpus=1, gpu_type="A100"))
    assert (problem.where, "is 39 GiB" in problem.what) == ("Sft of opt-6.7b", True)
    assert problem.remedy == "shards"
    (_, second) = check_memory(steps, Resources(gpus=0.5, gpu_type="A100"))
    assert second.remedy == "less"
    assert not check_memory(steps, Resources(gpus=1, gpu_type="A100"), 141 * GIB)
    assert not check_memory(steps, Resources())


def test_a_host_into_whose_memory_its_workers_do_not_load_their_models_is_told():
    of_l4 = {"CPU": 8, "GPU": 1, "accelerator_type:L4": 1}
    eight = {**of_l4, "CPU": 96, "GPU": 8}
    nodes = [
        NodeType("head", {"CPU": 8}, 1, memory=8 * GIB),
        NodeType("one", of_l4, 8, memory=64 * GIB),
        NodeType("eight", eight, 1, memory=128 * GIB),
        NodeType("untold", eight, 1),
    ]
    resources = Resources(train_workers=4, gpus=1, gpu_type="L4")
    hosts = hosts_of(nodes, resources)
    assert hosts == [Host("one", 64 * GIB, 1), Host("eight", 128 * GIB, 8)]
    loads = [("Sft of opt-13b", 48 * GIB, 4), ("Dpo of opt-13b", 24 * GIB, 1)]
    (problem,) = check_host_memory("c", hosts, loads)
    assert problem.what == (
        "the workers of Sft of opt-13b load about 192 GiB into the memory of eight, which is 128 "
        "GiB"
    )
    assert check_host_memory("c", hosts, [("Sft", 30 * GIB, 4)]) == []
    assert check_host_memory("c", hosts, []) == []


def taken(on_host=0.0, loaded=0.0):
    found = Footprint("Sft", "opt-13b", 0.0, 0.0, None, True, loaded=loaded, workers=2)
    return Taken([], Resources(), 512, [found], written=0.0, on_host=on_host)


def test_ray_on_this_machine_needs_its_memory_and_beside_a_bucket_its_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("WEAKTEACH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("weakteach.run.readiness.memory_here", lambda: 64 * GIB)
    monkeypatch.setattr("weakteach.run.readiness.free_bytes", lambda folder: 100 * GIB)
    folder, bucket = Store(str(tmp_path)), SimpleNamespace(is_local=False, url="s3://b/runs")
    (disk,) = check_run(taken(on_host=101 * GIB), bucket, Cluster())
    assert (disk.where, disk.remedy[:15]) == (str(tmp_path / "cache"), "WEAKTEACH_CACHE")
    assert disk.what == "about 101 GiB will be written, and 100 GiB are free"
    assert check_run(taken(on_host=99 * GIB), bucket, Cluster()) == []
    assert check_run(taken(on_host=101 * GIB), folder, Cluster()) == []
    (memory,) = check_run(taken(loaded=33 * GIB), folder, Cluster())
    assert "load about 66 GiB into the memory of this machine, which is 64 GiB" in memory.what
    # Of other machines nothing is known here.
    elsewhere = Cluster(address="10.0.0.1:6379")
    assert check_run(taken(101 * GIB, 33 * GIB), bucket, elsewhere) == []


def test_disks_and_memory_of_pods_are_their_limits(tmp_path):
    file = tmp_path / "cluster.yaml"
    limits = {"cpu": 8, "memory": "16Gi", "ephemeral-storage": "60Gi"}
    pod = {"spec": {"containers": [{"resources": {"limits": limits}}]}}
    groups = {"workerGroupSpecs": [{"groupName": "pod", "template": pod, "maxReplicas": 2}]}
    file.write_text(yaml.safe_dump({"kind": "RayCluster", "spec": groups}))
    needs = taken(on_host=11 * GIB, loaded=9 * GIB)
    found = check_run(needs, Store(str(tmp_path)), Cluster(cluster_file=file))
    assert [problem.where for problem in found] == ["cluster.yaml"] * 2
    assert "the disk of pod has room for 10 GiB" in found[0].what
    assert "into the memory of pod, which is 16 GiB" in found[1].what


def test_a_full_disk_is_told():
    (problem,) = check_disk("runs", 10 * GIB, 1500 * GIB)
    assert problem.what == "about 1,500 GiB will be written, and 10 GiB are free"
    assert not check_disk("runs", 10 * GIB, 9 * GIB)
    console = Console(width=100, record=True)
    console.print(problem_table([problem]))
    assert "another --storage" in console.export_text()
