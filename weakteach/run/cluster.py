"""Joining a Ray cluster, or starting Ray on this machine."""

import json
import logging
import math
import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.experimental.internal_kv import _internal_kv_get
from ray.tune.execution import class_cache

from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.run.address import ClusterError, ray_address
from weakteach.run.capacity import check_cluster
from weakteach.run.concurrency import AtOnce, on_cluster
from weakteach.run.leases import ray_lease
from weakteach.run.nodes import NodeType, nodes_of_ray

LOGGER = logging.getLogger(__name__)
# Set for every worker, unless the user's environment has a value. Ray Train's own defaults cost
# seconds per run (health checks), flood the logs (print patch) or give up before a node has booted.
WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Workers of a training wait for nodes that the cluster has yet to boot, or has just lost.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it, a process that asked for no GPU sees all GPUs of its host.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Each arm is a thread of its trial's process. With an arena for each thread, glibc would keep
    # the memory that earlier arms have freed, 14 MB for a small arm.
    "MALLOC_ARENA_MAX": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
# Tries to start Ray, which gives up if its processes are not up in 30 s, as on a busy machine.
STARTS = 3
# How long a cluster that is too small for an arm may take to replace a lost node.
SECONDS_FOR_NODES = 60.0
# The name that Ray's monitor gives to a node that no autoscaler launched.
BY_HAND = re.compile(r"node_[0-9a-f]{56}")
HEAD = "node:__internal_head__"
# What helps if a cluster has too little of a resource for an arm.
ADVICE = {
    "CPU": "start Ray with more (--num-cpus may be more than the machine has)",
    "GPU": "with --gpus 0.5 its training and what labels for it share one",
}


def shared(store: Store) -> Store:
    """The store with leases that hold across the cluster, if its storage has none of its own."""
    return store if store.is_local else Store(store.url, ray_lease)


@dataclass(frozen=True)
class Joined:
    """The Ray that a run is on. ``by_address`` says that it is a cluster which others started;
    ``dashboard`` is the URL of its dashboard, empty if there is none to show."""

    by_address: bool
    dashboard: str = ""


def start_ray(
    address: str | None,
    concurrent: int,
    resources: Resources,
    verbose: bool,
    dashboard: bool = False,
) -> Joined:
    """Join the cluster at ``address`` (or in the environment), or start Ray in this process, with
    its dashboard if that is asked for.

    A local Ray has logical CPUs for each trial, its labeling and its training workers, however
    many the machine has: a trial waits while its labeling runs. Raises ClusterError.
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR)
    # Tune would write the driver's keys of AWS into the runtime environment of each trial, which
    # Ray logs and shows. Nodes have keys or roles of their own.
    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not name.startswith("AWS_")}
    environment = WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(resources.threads)}
    os.environ.update({k: os.environ.get(k, v) for k, v in environment.items()})
    address, given = ray_address(address)
    options: dict[str, Any]
    if address:
        others = environment.keys() - _set_by_the_job()
        given_to_workers = {"env_vars": {name: os.environ[name] for name in others}}
        options = {"address": address, "runtime_env": given_to_workers}
    else:  # workers inherit the environment, so those that Ray starts in advance can be used
        options = _local(concurrent, resources) | {"include_dashboard": dashboard}
    for tries_left in reversed(range(1 if address else STARTS)):
        try:
            terminated = signal.getsignal(signal.SIGTERM)
            context = ray.init(
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
                **options,
            )
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, terminated)  # Ray's own would end the process at once
            url = context.dashboard_url or ""
            shown = f"http://{url}" if url and (dashboard or address) else ""
            return Joined(bool(address), shown)
        except Exception as error:  # Ray raises bare Exceptions, for instance on a busy machine
            ray.shutdown()
            if tries_left:
                LOGGER.warning("Ray did not start, and is started again: %s", error)
                continue
            raise ClusterError(
                f"The Ray cluster at {address} ({given}) cannot be joined: {error}"
                if address
                else f"Ray did not start in {STARTS} tries: {error}"
            ) from error
    raise AssertionError("the last try returns or raises")


def _set_by_the_job() -> set[str]:
    """Names of the environment variables that the job sets for its workers, if this process was
    submitted as one: Ray refuses to be told of one of them again."""
    job = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}"))
    return set((job.get("runtime_env") or {}).get("env_vars") or {})


def look_at(
    address: str | None, resources: Resources, verbose: bool
) -> tuple[list[NodeType], list[str]]:
    """Join the cluster at ``address``, look at it and leave it; nothing is started there. Return
    its nodes, and the sentences of ``what_waits`` on it. Raises ClusterError."""
    joined = start_ray(address, 1, resources, verbose)
    try:
        return nodes_now(), what_waits(joined, resources)
    finally:
        ray.shutdown()


def nodes_now() -> list[NodeType]:
    """The nodes of the Ray that was joined or started."""
    return nodes_of_ray(ray.nodes())


def what_waits(joined: Joined, resources: Resources, patience: float = 0.0) -> list[str]:
    """Sentences on what the nodes that are there cannot hold, which waits until more nodes join the
    cluster. Raises ClusterError for the Ray of this machine, which no node ever joins, and for a
    cluster that starts no nodes by itself, if the missing nodes have not joined it within
    ``patience`` seconds: it may have just lost a node."""
    give_up = time.monotonic() + patience
    while problems := check_cluster("Ray", nodes_now(), resources):
        one = problems[0]
        if not joined.by_address:
            raise ClusterError(f"On this machine {one.what}: {one.remedy}")
        if _may_grow():
            return [
                f"At the moment {one.what}. The rest waits until more nodes join; if none ever do: "
                f"{one.remedy}."
                for one in problems
            ]
        if time.monotonic() >= give_up:
            raise ClusterError(
                f"On this cluster, which starts no nodes by itself, {one.what}: start some that "
                f"do, or {one.remedy}"
            )
        time.sleep(1.0)
    return []


def grows(status: bytes | None) -> bool | None:
    """Whether a cluster starts nodes by itself, as its monitor's ``status`` in Ray's store says;
    None if that does not tell. Every cluster has a monitor: without an autoscaler it only watches,
    and names each node by its id, since it knows no node type that it could launch. The autoscaler
    of Kubernetes (v2) writes no such status."""
    report = json.loads(status or b"{}").get("autoscaler_report") or {}
    kinds = report.get("active_nodes")
    return not all(BY_HAND.fullmatch(kind) for kind in kinds) if kinds else None


def _may_grow() -> bool:
    return grows(_internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)) is not False


def arms_at_once(
    joined: Joined, wanted: AtOnce | None, resources: Resources, patience: float = 0.0
) -> AtOnce:
    """How many arms run at a time on the Ray that was joined or started: as many as are wanted, or
    else as it has room for, and no more than can run without starving each other.

    A trial that trains in its own process keeps its devices while it waits for its labeling: if
    trials held all devices, none would go on. A cluster that is too small for one arm may start
    nodes as soon as one asks for them, or have just lost a node. Raises ClusterError for the Ray of
    this machine, and for a cluster that starts no nodes by itself, if it is still too small after
    ``patience`` seconds.
    """
    if resources.train_workers:
        has = ray.cluster_resources()
        return wanted or on_cluster(
            resources, has.get("CPU", 0.0), has.get("GPU", 0.0), _bytes_of_the_head()
        )
    labelers = max(resources.label_tasks, resources.label_actors)
    needed = {"CPU": _cpus_of_a_trial(resources), "GPU": (1 + labelers) * resources.gpus}
    give_up = time.monotonic() + patience
    while lacking := _lacking(needed):
        what, remedy = lacking
        if joined.by_address and _may_grow():
            return AtOnce(1, f"{what}; it waits until nodes join, and if none ever do: {remedy}")
        if not joined.by_address or time.monotonic() >= give_up:
            raise ClusterError(f"{what}: {remedy}")
        time.sleep(1.0)
    fits = {
        name: int(ray.cluster_resources()[name] // amount)
        for name, amount in needed.items()
        if amount
    }
    scarce = min(fits, key=lambda name: fits[name])
    if wanted and wanted.arms <= fits[scarce]:
        return wanted
    return AtOnce(fits[scarce], f"Ray has {ray.cluster_resources()[scarce]:g} {scarce}s")


def _lacking(needed: dict[str, float]) -> tuple[str, str] | None:
    """Why Ray has no room for an arm, and what helps; None if it has room."""
    has = ray.cluster_resources()
    for name, amount in needed.items():
        if has.get(name, 0.0) < amount:
            what = f"Ray has {has.get(name, 0.0):g} {name}s, but an arm needs {amount:g}"
            return what, ADVICE[name]
    return None


def _bytes_of_the_head() -> float:
    """Bytes of the head's memory that Ray can give to workers; infinite if Ray does not tell."""
    heads = [node["Resources"] for node in ray.nodes() if HEAD in node["Resources"]]
    return float(heads[0].get("memory", math.inf)) if heads else math.inf


def _cpus_of_a_trial(resources: Resources) -> float:
    return 1 + max(resources.label_tasks, resources.label_actors) * resources.labeler_cpus


def _local(concurrent: int, resources: Resources) -> dict[str, Any]:
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Makes Ray take 127.0.0.1 for its address, as it does on Windows and macOS: otherwise its
    # ports, through which code can be run, are open to the network. Ray reads the variable when it
    # is imported, so its constant is set, too.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    training = max(resources.train_workers, resources.train_workers_max) * resources.cpus
    more = max(0, resources.label_actors_max - resources.label_actors)
    growing = more * resources.labeler_cpus
    return {
        "num_cpus": math.ceil(concurrent * (_cpus_of_a_trial(resources) + training + growing)),
        "address": "local",
    }
