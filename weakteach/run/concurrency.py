"""How many arms run at a time: as many as keep the machine, or the cluster, busy."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from weakteach.models.resources import Resources
from weakteach.run.address import is_here

GIB = 1 << 30
# Memory of the trial of an arm that trains in its own process, and of what labels for it.
ARM_BYTES = 2 * GIB
# Memory of a trial whose workers are elsewhere; all such trials are on the head.
DRIVER_BYTES = GIB // 2
# The fewest arms on a cluster: one that can grow then sees their demand; some may have to wait.
ARMS_OF_A_CLUSTER = 8
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class AtOnce:
    """How many arms run at a time, and what that number follows from."""

    arms: int
    why: str

    def __str__(self) -> str:
        return f"{self.arms} {'arm' if self.arms == 1 else 'arms'} at a time: {self.why}"


def planned(wanted: int | None, address: str | None, resources: Resources) -> AtOnce | None:
    """How many arms run at a time: as many as the user wants, or else as many as suit this machine;
    None if it depends on a cluster that is yet to be joined."""
    if wanted:
        return AtOnce(wanted, "as asked for")
    return on_machine(resources) if is_here(address) else None


def on_machine(resources: Resources) -> AtOnce:
    """As many arms as there are cores for their threads and memory for their processes."""
    cores, memory = cores_here(), memory_here()
    by_cores = cores // _cores_of_an_arm(resources)
    by_memory = int(memory // ARM_BYTES)
    if by_memory < by_cores:
        return AtOnce(max(1, by_memory), f"{memory / GIB:.0f} GiB of memory")
    return AtOnce(max(1, by_cores), f"{cores} {'core' if cores == 1 else 'cores'}")


def _cores_of_an_arm(resources: Resources) -> int:
    """The most cores that an arm takes at a time: it trains and labels one after the other."""
    return resources.threads * max(resources.train_workers, resources.label_workers)


def on_cluster(resources: Resources, cpus: float, gpus: float, head_bytes: float) -> AtOnce:
    """As many arms as ``cpus`` CPUs and ``gpus`` GPUs have room for, at least ARMS_OF_A_CLUSTER, if
    the memory of the head holds their drivers. Their workers are on nodes of their own. What may
    grow counts with its first size: more arms are worth more than more workers for each."""
    labelers = resources.label_actors or resources.label_tasks
    workers = max(resources.train_workers, labelers)
    taken = max(resources.train_workers * resources.cpus, labelers * resources.labeler_cpus)
    # Workers that ask for no CPU compute on one all the same.
    fits = int(cpus // (taken or workers))
    has = f"{cpus:g} CPUs"
    if resources.gpus and gpus // (workers * resources.gpus) < fits:
        fits, has = int(gpus // (workers * resources.gpus)), f"{gpus:g} GPUs"
    arms, why = max(fits, ARMS_OF_A_CLUSTER), f"the cluster has {has}"
    if fits < ARMS_OF_A_CLUSTER:
        why += ", and may grow"
    if (by_memory := max(1, int(head_bytes // DRIVER_BYTES))) < arms:
        return AtOnce(by_memory, f"the head has {head_bytes / GIB:.0f} GiB of memory")
    return AtOnce(arms, why)


def cores_here() -> int:
    """Cores that this process may use, by its affinity and its container's quota."""
    affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return min(cores, max(1, int(quota) // int(period))) if quota.isdigit() else cores


def memory_here() -> int:
    """Bytes of memory of this machine, or of the container if it may use less."""
    memory, limit = psutil.virtual_memory().total, _limit("memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def _limit(name: str) -> str:
    """A limit of this process's container; empty where there is none."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""
