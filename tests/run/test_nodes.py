"""What files of clusters tell of their nodes, and what they leave open."""

from pathlib import Path

import pytest
import ray
import yaml

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import GIB, Resources
from weakteach.run.capacity import check_cluster, open_questions
from weakteach.run.nodes import MOST_WORKERS, nodes_of_file

ROOT = Path(__file__).parents[2]
A100 = Resources(train_workers=2, gpus=1, gpu_type="A100", cpus=4)
OF_A100 = {"CPU": 8, "GPU": 1, "accelerator_type:A100": 1}


@pytest.fixture
def nodes(tmp_path):
    """Those of a file of ray up with these types, or of KubeRay with these groups."""

    def of(types=None, groups=None, **more):
        described = {"head_node_type": "head", "available_node_types": types, **more}
        if groups is not None:
            described = {"kind": "RayCluster", "spec": {"workerGroupSpecs": groups}}
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
        return nodes_of_file(tmp_path / "cluster.yaml")

    return of


def group(limits, told=None, **more):
    container = {"resources": {"limits": limits}}
    params = {"rayStartParams": {"resources": told}} if told else {}
    return {
        "groupName": "gpu", "template": {"spec": {"containers": [container]}}, **params, **more,
    }  # fmt: skip


def test_nodes_of_kuberay(tmp_path):
    (l4, *_) = nodes_of_file(ROOT / "cluster" / "kuberay" / "raycluster.yaml")
    assert (l4.name, l4.count) == ("l4", 8)
    assert l4.resources == {"CPU": 6.0, "GPU": 1.0, "accelerator_type:L4": 1}


def test_nodes_whose_resources_ray_finds_out_are_told_as_unknown_and_not_refused(nodes):
    """The AWS provider of Ray fills in what a type of a file does not tell."""
    found = nodes({"head": {"resources": {"CPU": 8}}, "gpu": {"node_config": {}}}, max_workers=4)
    assert check_cluster("aws.yaml", found, A100) == []
    assert open_questions("aws.yaml", found, A100) == [
        "aws.yaml does not tell the resources of gpu: whether it holds the workers that are asked "
        "for shows once it is there."
    ]
    # Where others hold them, it does not matter.
    types = {"head": {"resources": {"CPU": 8}}, "gpu": {}, "a100": {"resources": OF_A100}}
    assert open_questions("aws.yaml", nodes(types, max_workers=4), A100) == []
    (refused,) = check_cluster("aws.yaml", nodes({"head": {"resources": {"CPU": 8}}}), A100)
    assert refused.what == "no node has a A100 GPU"


def test_gpus_of_a_pod_whose_type_is_not_told_are_unknown_and_not_refused(nodes):
    found = nodes(groups=[group({"cpu": "8", "nvidia.com/gpu": 1}, maxReplicas=2)])
    assert check_cluster("ray.yaml", found, A100) == []
    (line,) = open_questions("ray.yaml", found, A100)
    assert "ray.yaml does not tell the GPU type of gpu" in line
    anything = Resources(train_workers=2, gpus=1, cpus=4)
    assert check_cluster("ray.yaml", found, anything) == open_questions("r", found, anything) == []
    # Too few CPUs are too few, whatever the GPU.
    small = nodes(groups=[group({"cpu": "2", "nvidia.com/gpu": 1}, maxReplicas=2)])
    (refused,) = check_cluster("ray.yaml", small, A100)
    assert refused.what == "no node has a A100 GPU"


def test_a_type_has_as_many_nodes_as_the_whole_cluster_where_it_does_not_say(nodes):
    types = {"head": {"resources": {"CPU": 8}}, "a100": {"resources": OF_A100}}
    found = nodes(types, max_workers=6)
    assert [(node.name, node.count) for node in found] == [("head", 1), ("a100", 6)]
    for count, told in ((6, 0), (7, 1)):
        asked = Resources(train_workers=count, gpus=1, gpu_type="A100", cpus=4)
        assert len(check_cluster("c", found, asked)) == told
    assert nodes(types)[1].count == MOST_WORKERS
    for cloud in ("aws", "gcp", "azure"):
        defaults = Path(ray.__file__).parent / "autoscaler" / cloud / "defaults.yaml"
        assert yaml.safe_load(defaults.read_text())["max_workers"] == MOST_WORKERS


def test_all_types_together_have_no_more_nodes_than_the_cluster(nodes):
    eight = {**OF_A100, "CPU": 96, "GPU": 8}
    types = {
        "head": {"resources": OF_A100},  # which is none of the workers
        "one": {"resources": OF_A100, "max_workers": 8},
        "eight": {"resources": eight, "max_workers": 2},
    }
    found = nodes(types, max_workers=3)
    assert [node.count for node in found] == [1, 3, 2]
    asked = Resources(label_actors=19, gpus=1, gpu_type="A100")
    (refused,) = check_cluster("c", found, asked)
    assert "all nodes together hold 18" in refused.what  # 1 + 2 * 8 + 1


def test_none_is_none(nodes):
    types = {
        "head": {"resources": {"CPU": 8}, "max_workers": 0},
        "a100": {"resources": OF_A100, "max_workers": 0},
    }
    assert [node.name for node in nodes(types, max_workers=8)] == ["head"]
    assert nodes(groups=[group({"cpu": 1}, maxReplicas=0)]) == []
    assert [node.count for node in nodes(groups=[group({"cpu": 1}, replicas=3)])] == [3]
    (refused,) = check_cluster("c", [], Resources(train_workers=1, gpus=1))
    assert refused.what == "no node has 1 GPUs and 1 CPUs for one worker"


def test_quantities_of_kubernetes(nodes):
    limits = {"cpu": "7500m", "memory": "24Gi", "ephemeral-storage": "600Gi"}
    (pod,) = nodes(groups=[group(limits)])
    assert (pod.resources, pod.memory, pod.disk) == ({"CPU": 7.5}, 24 * GIB, 600 * GIB)
    assert nodes(groups=[group({"cpu": 1, "memory": "2e9"})])[0].memory == 2e9
    assert nodes(groups=[group({"cpu": 1, "memory": "1.5G"})])[0].memory == 1.5e9
    with pytest.raises(UserError, match="'much' is no quantity"):
        nodes(groups=[group({"cpu": "much"})])
