"""A Ray cluster on this machine whose nodes come and go."""

import time
from typing import Any

import psutil
from processes import free_port, kill, kill_family

# A node's place is taken this long after its loss.
SECONDS_WITHOUT_NODE = 4.0


class Nodes:
    """A Ray cluster of this machine's processes: a head without CPUs, and nodes to be lost."""

    def __init__(self, count: int, cpus: int) -> None:
        # Reads the environment when it is imported.
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        for tries_left in (2, 1, 0):  # as below
            self._cluster = Cluster()
            try:
                self._cluster.add_node(
                    num_cpus=0, include_dashboard=True, dashboard_port=free_port()
                )
                break
            except Exception:
                for child in psutil.Process().children():
                    kill_family(child)
                if not tries_left:
                    raise
        self._due: list[float] = []
        for _ in range(count):
            self._add()

    def _add(self) -> None:
        """Add a node; on a machine too busy to start one within Ray's 30 seconds, later."""
        try:
            self._cluster.add_node(num_cpus=self._cpus)
        except Exception:  # Ray raises bare ones
            known = {raylet_of(node).pid for node in (self._cluster.head_node, *self.extra)}
            for child in psutil.Process().children():
                if child.name() == "raylet" and child.pid not in known:
                    kill_family(child)
            self._due.append(time.monotonic() + SECONDS_WITHOUT_NODE)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def extra(self) -> list[Any]:
        return sorted(self._cluster.worker_nodes, key=lambda node: str(node.unique_id))

    def lose(self, node: Any) -> str:
        """Kill the node's raylet and all below it; its place is taken later."""
        raylet = raylet_of(node)
        below = raylet.children(recursive=True)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in below:
            kill(process)
        self._due.append(time.monotonic() + SECONDS_WITHOUT_NODE)
        return f"raylet {raylet.pid} with {len(below)} processes"

    def replace_lost(self) -> None:
        while self._due and time.monotonic() >= self._due[0]:
            self._due.pop(0)
            self._add()

    def shutdown(self) -> None:
        self._cluster.shutdown()


def raylet_of(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)
