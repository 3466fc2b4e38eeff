"""Whether a cluster can run what a preset asks for: python cluster/check.py cluster/aws.yaml

Reads the files of `ray up` and RayCluster manifests the way Ray's own autoscaler does.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import Parameter

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import Resources
from weakteach.run.terminal import EXIT_USAGE, launch, script
from weakteach.study.presets import PRESETS

GPU_TYPE = "accelerator_type:"


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind: what Ray sees in each, and how many there may be."""

    name: str
    cpus: float
    gpus: float
    gpu_type: str
    most: int
    instance: str = ""


def groups_of(file: Path) -> list[NodeGroup]:
    """The node groups of a cluster file, its head (one node) included."""
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    if config.get("kind") == "RayCluster":
        # Ray's own reading of a manifest. Both imports load Ray, which --help need not wait for.
        from ray.autoscaler._private.kuberay.autoscaling_config import (
            _derive_autoscaling_config_from_ray_cr,
        )

        config = _derive_autoscaling_config_from_ray_cr(config)
    else:
        from ray.autoscaler._private.util import prepare_config

        config = prepare_config(config)
    head = config["head_node_type"]
    return [
        _group(name, node, 1 if name == head else node["max_workers"])
        for name, node in config["available_node_types"].items()
    ]


def _group(name: str, node: dict[str, Any], most: int) -> NodeGroup:
    resources = node["resources"]
    types = [key.removeprefix(GPU_TYPE) for key in resources if key.startswith(GPU_TYPE)]
    config = node["node_config"]
    instance = (
        config.get("InstanceType")
        or config.get("machineType")
        or config.get("azure_arm_parameters", {}).get("vmSize", "")
    )
    return NodeGroup(
        name, resources["CPU"], resources.get("GPU", 0), types[0] if types else "", most, instance
    )


def shortfalls(wanted: Resources, groups: list[NodeGroup]) -> list[str]:
    """What the groups lack for these resources, a sentence each; none if they suffice."""
    able = [group for group in groups if group.gpus >= wanted.gpus and group.cpus >= wanted.cpus]
    kind = f"{wanted.gpu_type} " if wanted.gpu_type else ""
    one = f"a worker with {wanted.gpus:g} {kind}GPU and {wanted.cpus:g} CPUs"
    if wanted.gpu_type:
        able = [group for group in able if group.gpu_type == wanted.gpu_type]
    if not able:
        return [f"no node group can hold {one}"]
    room = sum(_workers(group, wanted) * group.most for group in able)
    names = ", ".join(group.name for group in able)
    return [
        f"{what} asks for {count} times {one}, but {names} hold {room} at most"
        for what, count in (("training", wanted.train_workers), ("labeling", wanted.label_actors))
        if count > room
    ]


def _workers(group: NodeGroup, wanted: Resources) -> int:
    """How many workers fit on a node of the group."""
    by_cpu = group.cpus // wanted.cpus
    return int(min(by_cpu, group.gpus // wanted.gpus) if wanted.gpus else by_cpu)


def main(
    files: Annotated[list[Path], Parameter(help="Cluster files.")],
    preset: Annotated[str, Parameter(help="Preset that they should run.")] = "paper",
    gpu_type: Annotated[str | None, Parameter(help="In place of the preset's own.")] = None,
) -> int:
    """Check that cluster files have the nodes that a preset asks for."""
    if preset not in PRESETS:
        raise UserError(f"--preset: one of {', '.join(PRESETS)}")
    wanted = PRESETS[preset].resources
    if gpu_type is not None:
        wanted = replace(wanted, gpu_type=gpu_type)
    wrong = False
    for file in files:
        groups = groups_of(file)
        lacking = shortfalls(wanted, groups)
        for group in groups:
            gpus = f"{group.gpus:g} {group.gpu_type}".strip() if group.gpus else "no"
            print(f"{file}: {group.name} 0-{group.most}: {group.cpus:g} CPUs, {gpus} GPU")
        for sentence in lacking:
            print(f"Error: {file}: {sentence} (preset {preset})", file=sys.stderr)
        wrong = wrong or bool(lacking)
    return EXIT_USAGE if wrong else 0


if __name__ == "__main__":
    launch(script(main))
