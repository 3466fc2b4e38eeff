"""Leases for storages that have none of their own: an actor of the cluster keeps them."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from filelock import Timeout

from weakteach.artifacts.store import LEASE_SECONDS, POLL_SECONDS

KEEPER = "weakteach-leases"
NAMESPACE = "weakteach"


class LeaseKeeper:
    """Knows who holds which key and until when, by this actor's clock. The lease of a holder that
    is gone runs out."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[str, float]] = {}

    def claim(self, key: str, holder: str, seconds: float) -> bool:
        """Take a free key, or keep one's own for ``seconds`` more. Return whether the caller holds
        it."""
        current, until = self._holders.get(key, (holder, 0.0))
        if current != holder and until > time.monotonic():
            return False
        self._holders[key] = (holder, time.monotonic() + seconds)
        return True

    def release(self, key: str, holder: str) -> None:
        if self._holders.get(key, ("", 0.0))[0] == holder:
            del self._holders[key]


@contextmanager
def ray_lease(key: str, wait: float) -> Iterator[None]:
    """A lease on the key, renewed in the background; see ``store.Leases``. Needs a running Ray."""
    keeper: Any = (
        ray.remote(LeaseKeeper)
        .options(
            name=KEEPER,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            # On the head: it would be lost with a spot node, or keep another node from being idle.
            resources={"node:__internal_head__": 0.001},
            scheduling_strategy="DEFAULT",
            # A keeper that starts anew knows of no holder until each has renewed its lease.
            max_restarts=-1,
            max_task_retries=-1,
            get_if_exists=True,
        )
        .remote()
    )
    holder = uuid.uuid4().hex
    give_up = time.monotonic() + wait
    while not ray.get(keeper.claim.remote(key, holder, LEASE_SECONDS)):
        if time.monotonic() >= give_up:
            raise Timeout(key)
        time.sleep(POLL_SECONDS)
    released = threading.Event()

    def renew() -> None:
        while not released.wait(LEASE_SECONDS / 3):
            ray.get(keeper.claim.remote(key, holder, LEASE_SECONDS))

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        ray.get(keeper.release.remote(key, holder))
