"""The nodes that a cluster has, or may get, by its file or as Ray lists them."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import GIB, GPU_GIB, Resources

ACCELERATOR = "accelerator_type:"
# The most workers where a file of ray up does not tell: the default of Ray's clouds.
MOST_WORKERS = 2
# The resources of a pod that are read from a file.
READ = ("cpu", "memory", "nvidia.com/gpu", "ephemeral-storage")
QUANTITY = re.compile(r"(\d+\.?\d*(?:e\d+)?)(m|[kMGTP]|[KMGTP]i)?")
SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
SUFFIXES |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", 1)}


@dataclass(frozen=True)
class NodeType:
    """A kind of node that a cluster may have: the resources of one node, the most nodes there may
    be (``count``), and the bytes of a node's disk and memory where they are told. Of all kinds with
    the same ``together`` there are at most that many nodes in all. ``unknown`` is what a file does
    not tell of the resources, since Ray finds it out once a node is there."""

    name: str
    resources: Mapping[str, float]
    count: int
    disk: float | None = None
    memory: float | None = None
    together: float = math.inf
    unknown: Literal["", "resources", "GPU type"] = ""


def nodes_of_file(file: Path) -> list[NodeType]:
    """The node types in a cluster file of ``ray up``, or in a RayCluster of KubeRay; types of which
    there can be no node are left out. Raises UserError."""
    try:
        described = yaml.safe_load(file.read_text())
        if described.get("kind") == "RayCluster":
            found = [_node_of_group(group) for group in described["spec"]["workerGroupSpecs"]]
        else:
            found = [*_nodes_of_types(described)]
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{file} is no cluster file of ray up or KubeRay ({type(error).__name__}: {error})"
        ) from error
    return [node for node in found if node.count]


def _nodes_of_types(described: Mapping[str, Any]) -> Iterator[NodeType]:
    """Yield the head, and each kind of workers with the most nodes that the file allows of the kind
    or, if it does not tell, of the whole cluster."""
    most, head = int(_or(described.get("max_workers"), MOST_WORKERS)), described["head_node_type"]
    for name, kind in described["available_node_types"].items():
        resources = kind.get("resources") or {}
        disk, memory = _disk(kind.get("node_config") or {}), resources.get("memory")
        node = NodeType(name, resources, 1, disk, memory, unknown=_unknown(resources))
        if name == head:
            yield node
        count = int(_or(kind.get("max_workers"), 0 if name == head else most))
        yield replace(node, count=min(count, most), together=most)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _unknown(resources: Mapping[str, float]) -> Literal["", "resources", "GPU type"]:
    if not resources:
        return "resources"
    told = any(name.startswith(ACCELERATOR) for name in resources)
    return "GPU type" if resources.get("GPU") and not told else ""


def _disk(config: Mapping[str, Any]) -> float | None:
    """Bytes of the first disk whose size is told, of a node of AWS, Google Cloud or Azure. All of
    them count in GiB."""
    sizes = [
        *(disk.get("Ebs", {}).get("VolumeSize") for disk in config.get("BlockDeviceMappings", ())),
        *(disk.get("initializeParams", {}).get("diskSizeGb") for disk in config.get("disks", ())),
        config.get("azure_arm_parameters", {}).get("osDiskSize"),
    ]
    return next((float(size) * GIB for size in sizes if size), None)


def _node_of_group(group: Mapping[str, Any]) -> NodeType:
    """The node type of a group's pods: what their first container is given, and the resources that
    Ray is told besides."""
    container = group["template"]["spec"]["containers"][0].get("resources") or {}
    limits, requests = (
        {name: _quantity(text) for name, text in (container.get(of) or {}).items() if name in READ}
        for of in ("limits", "requests")
    )
    given = {**requests, **limits}
    told = json.loads((group.get("rayStartParams") or {}).get("resources") or "{}")
    told = json.loads(told) if isinstance(told, str) else told  # KubeRay wants it quoted
    names = {"CPU": "cpu", "GPU": "nvidia.com/gpu"}
    resources = {name: given[key] for name, key in names.items() if key in given} | told
    return NodeType(
        group["groupName"],
        resources,
        int(_or(group.get("maxReplicas"), _or(group.get("replicas"), 1))),
        limits.get("ephemeral-storage"),
        limits.get("memory"),
        unknown=_unknown(resources) if "CPU" in resources else "resources",
    )


def _quantity(text: Any) -> float:
    """A number as Kubernetes writes it, such as 500m or 24Gi. Raises ValueError."""
    if not (found := QUANTITY.fullmatch(str(text))):
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * SUFFIXES[found[2] or ""]


def nodes_of_ray(alive: Iterable[Mapping[str, Any]]) -> list[NodeType]:
    """The nodes of a running cluster, as ``ray.nodes()`` lists them. A cluster that scales up by
    itself may get nodes of other kinds, of which only its file tells."""
    return [
        NodeType(str(node.get("NodeName")), node["Resources"], 1, memory=_memory(node["Resources"]))
        for node in alive
        if node.get("Alive")
    ]


def _memory(resources: Mapping[str, float]) -> float | None:
    """Bytes of a node's memory, with the part that Ray sets aside for objects. Where Ray was told
    how much memory there is, the sum is more than that, so nothing is refused that has room."""
    if "memory" not in resources:
        return None
    return resources["memory"] + resources.get("object_store_memory", 0.0)


def smallest_card(nodes: Iterable[NodeType], resources: Resources) -> float | None:
    """Bytes that a worker has of the smallest GPU on which it may be placed, of the nodes whose GPU
    type is known. None if there is no such node, if a type is asked for, or without GPUs."""
    if resources.gpu_type or not resources.gpus:
        return None
    able = (node for node in nodes if node.resources.get("GPU", 0) >= resources.gpus)
    cards = [gib for node in able if (gib := _card(node))]
    return min(cards) * GIB * resources.gpus if cards else None


def _card(node: NodeType) -> float:
    """GiB of one of a node's GPUs: the most if the GPU goes by several names (A100, A100-80G), 0 if
    none of them is known."""
    names = (name.removeprefix(ACCELERATOR) for name in node.resources if ACCELERATOR in name)
    return max((GPU_GIB.get(name, 0.0) for name in names), default=0.0)
