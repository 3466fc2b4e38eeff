"""The nodes that a cluster has, or may get, by its file or as Ray lists them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import GIB

ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class NodeType:
    """A kind of node that a cluster may have: resources of one, how many at most, and the bytes of
    its disk where the file tells them."""

    name: str
    resources: Mapping[str, float]
    count: int
    disk: float | None = None


def nodes_of_file(file: Path) -> list[NodeType]:
    """The node types of a cluster file of ``ray up``, or of a RayCluster of KubeRay. Raises
    UserError."""
    try:
        described = yaml.safe_load(file.read_text())
        if described.get("kind") == "RayCluster":
            return [_node_of_group(group) for group in described["spec"]["workerGroupSpecs"]]
        return [
            NodeType(
                name,
                kind.get("resources") or {},
                int(kind.get("max_workers") or 1),
                _disk(kind.get("node_config") or {}),
            )
            for name, kind in described["available_node_types"].items()
        ]
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{file} is no cluster file of ray up or KubeRay ({type(error).__name__}: {error})"
        ) from error


def _disk(config: Mapping[str, Any]) -> float | None:
    """Bytes of the first disk of a node of AWS, Google Cloud or Azure, whose GB are all GiB."""
    sizes = [disk["Ebs"]["VolumeSize"] for disk in config.get("BlockDeviceMappings", ())]
    sizes += [disk["initializeParams"]["diskSizeGb"] for disk in config.get("disks", ())]
    sizes += [size for size in [config.get("azure_arm_parameters", {}).get("osDiskSize")] if size]
    return float(sizes[0]) * GIB if sizes else None


def _node_of_group(group: Mapping[str, Any]) -> NodeType:
    """Of the group's pods: what their first container is given, and what Ray is told besides."""
    container = group["template"]["spec"]["containers"][0]["resources"]
    given = {**container.get("requests", {}), **container.get("limits", {})}
    told = json.loads((group.get("rayStartParams") or {}).get("resources") or "{}")
    resources = json.loads(told) if isinstance(told, str) else told  # KubeRay wants it quoted
    cpu = str(given.get("cpu", 0))
    cores = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    gpus = float(given.get("nvidia.com/gpu", 0))
    count = int(group.get("maxReplicas") or group.get("replicas") or 1)
    return NodeType(group["groupName"], {"CPU": cores, "GPU": gpus, **resources}, count)


def nodes_of_ray(alive: Iterable[Mapping[str, Any]]) -> list[NodeType]:
    """The nodes of a running cluster, as ``ray.nodes()`` lists them; one that scales up by itself
    may get others, which its file tells."""
    return [
        NodeType(str(node.get("NodeName")), node["Resources"], 1)
        for node in alive
        if node.get("Alive")
    ]
