"""Finds whether a cluster has room for workers, and tells that work waits for room."""

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from ray._private.state import available_resources_per_node
from ray.exceptions import RayError

from weakteach.artifacts.signs import Sign
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources

LOGGER = logging.getLogger(__name__)
# Between two checks whether work waits: a process takes about as long to start on a busy machine.
LOOK_SECONDS = 15.0
# What Ray takes for a worker of the resource that names the type of a node's GPUs.
OF_THE_TYPE = 0.001


def has_room(resources: Resources, workers: int = 1) -> bool:
    """Whether the resources that are free in the cluster suffice for this many workers."""
    return fits(available_resources_per_node().values(), resources, workers)


def fits(free: Iterable[Mapping[str, float]], resources: Resources, workers: int) -> bool:
    """Whether nodes with these ``free`` resources, by Ray's names, have room for the workers. Each
    worker needs all of its resources on one node, and a GPU of its type."""
    needed = {"CPU": resources.cpus, "GPU": resources.gpus}
    if resources.gpu_type:
        needed[f"accelerator_type:{resources.gpu_type}"] = OF_THE_TYPE
    needed = {name: amount for name, amount in needed.items() if amount}
    if not needed:
        return True
    rooms = (min(node.get(name, 0.0) / amount for name, amount in needed.items()) for node in free)
    return sum(int(room + 1e-6) for room in rooms) >= workers


@contextmanager
def waits_told(
    store: Store, folder: str, tell: Callable[[bool], None] | None, room: Callable[[], bool]
) -> Iterator[Sign | None]:
    """While the body runs, call ``tell`` with True at intervals as long as its work waits, and with
    False once when the wait is over. The work waits if its workers have not put the sign, a file
    in the folder, and there is no ``room`` for them. Gives the sign, or None without ``tell``."""
    if not tell:
        yield None
        return
    ended, sign = threading.Event(), Sign(store, f"{folder}/.{secrets.token_hex(8)}.begun")

    def look() -> None:
        waited = False
        while not ended.wait(LOOK_SECONDS):
            try:
                waits = not (sign.is_there or room())
            except (OSError, RayError):
                LOGGER.exception("whether there is room")
                continue
            if waits or waited:
                tell(waits)
            waited = waits

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield sign
    finally:
        ended.set()
        thread.join()
        try:
            sign.take()
        except OSError:
            LOGGER.exception("%s stays", sign.path)
