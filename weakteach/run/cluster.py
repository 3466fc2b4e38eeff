"""Joining a Ray cluster, or starting Ray on this machine."""

import logging
import math
import os
import time
from typing import Any

import ray
from ray._private import ray_constants
from ray.tune.execution import class_cache

from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.run.address import ClusterError, ray_address
from weakteach.run.leases import ray_lease

LOGGER = logging.getLogger(__name__)
# Set for every worker; a value that the user's environment has wins. Ray Train's own defaults cost
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
    "RAY_AIR_NEW_OUTPUT": "0",
}
# Ray gives up after 30 s in which its processes have not come up, as on a busy machine.
STARTS = 3
# How long a cluster that is too small for an arm may take to replace a lost node.
SECONDS_FOR_NODES = 60.0


def shared(store: Store) -> Store:
    """The store with leases that hold across the cluster, where its storage has none itself."""
    return store if store.is_local else Store(store.url, ray_lease)


def start_ray(
    address: str | None,
    concurrent: int,
    resources: Resources,
    verbose: bool,
    dashboard: bool = False,
) -> str:
    """Join the cluster at ``address`` (or in the environment), or start Ray in this process, with
    its dashboard if that is asked for; the dashboard's URL, empty without one.

    A local Ray has a logical CPU for each trial and one for each trial's labeling, whatever the
    machine has: a trial waits while its labeling runs. Raises ClusterError.
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR)
    # Tune would write the driver's keys of AWS into the runtime environment of each trial, which
    # Ray logs and shows. Nodes have keys or roles of their own.
    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not name.startswith("AWS_")}
    environment = WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(resources.threads)}
    os.environ.update({k: os.environ.get(k, v) for k, v in environment.items()})
    address, given = ray_address(address)
    options: dict[str, Any] = {"address": address}
    if not address:
        options = _local(concurrent, resources) | {"include_dashboard": dashboard}
    for tries_left in reversed(range(1 if address else STARTS)):
        try:
            context = ray.init(
                runtime_env={"env_vars": {name: os.environ[name] for name in environment}},
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
                **options,
            )
            url = context.dashboard_url or ""
            return f"http://{url}" if url and (dashboard or address) else ""
        except Exception as error:  # Ray raises bare ones, of a busy machine for instance
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


def arms_at_once(wanted: int, resources: Resources) -> int:
    """How many arms of those wanted can run on the cluster without starving each other.

    A trial that trains in its own process keeps a CPU while it waits for its labeling: if trials
    held every CPU, none of them would go on. A cluster that is too small for one may have just
    lost a node: it is given some time. Raises ClusterError if none comes.
    """
    if resources.train_workers:
        return wanted
    needed = _cpus_of_a_trial(resources)
    give_up = time.monotonic() + SECONDS_FOR_NODES
    while (available := float(ray.cluster_resources().get("CPU", 0.0))) < needed:
        if time.monotonic() >= give_up:
            raise ClusterError(
                f"The cluster has {available:g} CPUs, but an arm needs {needed:g}: start Ray with "
                "more (--num-cpus may be more than the machine has)"
            )
        time.sleep(1.0)
    return min(wanted, int(available // needed))


def _cpus_of_a_trial(resources: Resources) -> float:
    return 1 + max(resources.label_tasks, resources.label_actors) * resources.cpus


def _local(concurrent: int, resources: Resources) -> dict[str, Any]:
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # As on Windows and macOS, where Ray takes 127.0.0.1 for its address: else its ports, through
    # which code can be run, are open to the network. It reads the variable when it is imported.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    training = resources.train_workers * resources.cpus
    growing = max(0, resources.label_actors_max - resources.label_actors) * resources.cpus
    return {
        "num_cpus": math.ceil(concurrent * (_cpus_of_a_trial(resources) + training + growing)),
        "address": "local",
    }
