"""Checks that nodes, GPUs and disks have room for what steps take; each returns problems."""

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weakteach.models.resources import GIB, Resources, room_of
from weakteach.run.nodes import ACCELERATOR, NodeType
from weakteach.run.preflight import Problem

# Reserved on a node's disk for the system, Ray's image with CUDA, and its logs.
SYSTEM_GIB = 50


def check_cluster(where: str, nodes: Sequence[NodeType], resources: Resources) -> list[Problem]:
    """Check that the nodes can ever place the workers of one step, all workers of a training at
    once. If the file does not tell enough about a node that may hold them, there is no problem:
    ``open_questions`` tells of such nodes."""
    told = [node for node in nodes if not _is_open(node, resources)]
    return _not_held(where, told, resources) if len(told) == len(nodes) else []


def open_questions(where: str, nodes: Sequence[NodeType], resources: Resources) -> list[str]:
    """Sentences on what can be known only once the nodes are there; none if the nodes that the file
    tells enough about hold the workers."""
    unknown = [node for node in nodes if _is_open(node, resources)]
    if not _not_held(where, [node for node in nodes if node not in unknown], resources):
        return []
    return [
        f"{where} does not tell the {node.unknown} of {node.name}: whether it holds the workers "
        "that are asked for shows once it is there."
        for node in unknown
    ]


def _is_open(node: NodeType, resources: Resources) -> bool:
    """Whether a node may hold a worker, but too little is told of it to be sure."""
    return node.unknown == "resources" or bool(
        node.unknown and resources.gpu_type and _workers_on(node, resources)
    )


def _workers_on(node: NodeType, resources: Resources) -> int:
    """The number of workers that a node has CPUs and GPUs for, whatever the type of its GPUs."""
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    room = (node.resources.get(name, 0) // each for name, each in wanted.items() if each)
    return int(min(room, default=0))


def _held(fits: Sequence[int], nodes: Sequence[NodeType]) -> int:
    """The number of workers that all nodes hold together, where ``fits`` are those that one node of
    each type holds. Where not all nodes may exist at once, those that hold most count first."""
    left, held = min(node.together for node in nodes), 0
    for fit, node in sorted(zip(fits, nodes, strict=True), key=lambda pair: -pair[0]):
        limited = node.together < math.inf
        count = int(min(node.count, left)) if limited else node.count
        left -= count if limited else 0
        held += fit * count
    return held


def _not_held(where: str, nodes: Sequence[NodeType], resources: Resources) -> list[Problem]:
    if not resources.gpus and not resources.train_workers:
        return []
    kind = f"{ACCELERATOR}{resources.gpu_type}"
    with_type = [n for n in nodes if not resources.gpu_type or n.resources.get(kind)]
    if not with_type and resources.gpu_type:
        types = sorted(
            {r.removeprefix(ACCELERATOR) for n in nodes for r in n.resources if ACCELERATOR in r}
        )
        return [
            Problem(
                where,
                f"no node has a {resources.gpu_type} GPU",
                f"--gpu-type {' or '.join(types) if types else 'any'}, or another cluster",
            )
        ]
    fits = [_workers_on(node, resources) for node in with_type]
    if not max(fits, default=0):
        return [
            Problem(
                where,
                f"no node has {resources.gpus:g} GPUs and {resources.cpus:g} CPUs for one worker",
                "ask for fewer with --gpus and --cpus, or larger nodes",
            )
        ]
    room = _held(fits, with_type)
    problems = []
    for option, count in (
        ("--train-workers", resources.train_workers),
        ("--label-actors", resources.label_actors),
    ):
        if count > room:
            what = f"{count} workers are asked for, and all nodes together hold {room}"
            problems.append(Problem(where, what, f"{option} {room}, or a larger cluster"))
    cpus = sum(node.resources.get("CPU", 0) * node.count for node in nodes)
    taken = resources.label_actors * resources.cpus
    if resources.preparing_cpus and taken <= cpus < taken + resources.preparing_cpus:
        what = f"labeling actors take all {cpus:g} CPUs, and leave none to tokenize for them"
        problems.append(Problem(where, what, "fewer --cpus or --label-actors, or a larger cluster"))
    return problems


def check_hosts(
    where: str, nodes: Sequence[NodeType], resources: Resources, needed: float
) -> list[Problem]:
    """Check that the disks of nodes which may hold a worker have room for the ``needed`` bytes that
    steps keep on their hosts, besides the system and Ray's image."""
    return [
        Problem(
            where,
            f"steps keep up to {needed / GIB:,.0f} GiB on their host (models, checkpoints), and "
            f"the disk of {node.name} has room for {node.disk / GIB - SYSTEM_GIB:,.0f} GiB",
            f"a disk of {needed / GIB + SYSTEM_GIB:,.0f} GiB or more in the file, or --sft-lora of "
            "sweeps",
        )
        for node in nodes
        if node.disk is not None
        and needed > node.disk - SYSTEM_GIB * GIB
        and _may_get_a_worker(node, resources)
    ]


def _may_get_a_worker(node: NodeType, resources: Resources) -> bool:
    has_type = not resources.gpu_type or f"{ACCELERATOR}{resources.gpu_type}" in node.resources
    return has_type and node.resources.get("GPU", 0) >= resources.gpus


@dataclass(frozen=True)
class Host:
    """A host: the bytes of its memory, and the most workers that it gets."""

    name: str
    memory: float
    workers: float = math.inf


def hosts_of(nodes: Iterable[NodeType], resources: Resources) -> list[Host]:
    """The nodes whose memory is told and which may get a worker."""
    return [
        Host(node.name, node.memory, _workers_on(node, resources))
        for node in nodes
        if node.memory is not None and _may_get_a_worker(node, resources)
    ]


def check_host_memory(
    where: str, hosts: Iterable[Host], loads: Sequence[tuple[str, float, int]]
) -> list[Problem]:
    """Check that each host has memory for the models that workers load into it before these go to
    GPUs or are sharded. ``loads`` are, for each training, its name, the bytes that a worker loads
    and the number of workers, which are placed on as few hosts as hold them."""
    problems = []
    for host in hosts:
        there = [(each * min(workers, host.workers), name) for name, each, workers in loads]
        needed, name = max(there, default=(0.0, ""))
        if needed > host.memory:
            what = (
                f"the workers of {name} load about {needed / GIB:,.0f} GiB into the memory of "
                f"{host.name}, which is {host.memory / GIB:,.0f} GiB"
            )
            problems.append(Problem(where, what, "hosts of more memory, or --sft-lora of sweeps"))
    return problems


def check_memory(
    steps: Iterable[tuple[str, float, str]], resources: Resources, room: float | None = None
) -> list[Problem]:
    """Check that a GPU has the bytes that each step takes. ``steps`` are, for each step, its name,
    these bytes, and the remedy if they are not there. ``room`` is the bytes of a worker's share of
    a GPU; without it, the GPU is the smallest that is sold under the name of its type."""
    room = room_of(resources) if room is None else room
    if room is None:
        return []
    of = f"a {resources.gpu_type}" if resources.gpu_type else "the smallest GPU there"
    return [
        Problem(
            name,
            f"it takes about {needed / GIB:.0f} GiB, and its share of {of} is {room / GIB:.0f} GiB",
            remedy,
        )
        for name, needed, remedy in steps
        if needed > room
    ]


LESS_IN_STORAGE = "another --storage, --drop-sft of sweeps, or `weakteach gc`"


def check_disk(
    where: str, free: float, needed: float, remedy: str = LESS_IN_STORAGE
) -> list[Problem]:
    """Check that the ``free`` bytes of a disk are enough for the ``needed`` ones."""
    if needed <= free:
        return []
    what = f"about {needed / GIB:,.0f} GiB will be written, and {free / GIB:,.0f} GiB are free"
    return [Problem(where, what, remedy)]


def free_bytes(folder: Path) -> float:
    """The free bytes of the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
