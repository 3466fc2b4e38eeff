"""Actors that hold models, shared by all streams of a run.

A model of billions of weights takes a minute to load, and the steps of a study score with one gold
model some hundred times. So an actor that holds a model, a holder, does not belong to one stream.
It makes shards for all streams that ask for its model, at the same time or one after the other, and
outlives the step for which it was started. A holder without work is ended once something else waits
for the resources that it takes, and after HELD_SECONDS in any case.

One actor of Ray, ``Holders``, starts the holders and hands them their work. The driver of the run
starts it, and all of them end with the driver.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa
import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RayActorError, RayError

from weakteach.artifacts.errors import LostError
from weakteach.labeling.shards import Stream
from weakteach.labeling.stages import failed_shards, make_shards, prepare_shards
from weakteach.models.resources import Resources
from weakteach.models.room import has_room

LOGGER = logging.getLogger(__name__)
NAMESPACE = "weakteach"
HELD_SECONDS = 60.0
LOOK_SECONDS = 0.5
# Something has to be seen waiting this many times in a row before a holder is ended for it: what is
# seen waiting once may be about to get what it waits for.
LOOKS = 2
# While one shard is computed, the next can be on its way, or the last one be written.
SHARDS_AT_A_TIME = 2
# The number of shards that a task hands over before it waits for the first of them.
SHARDS_AHEAD = SHARDS_AT_A_TIME + 1
# When this many holders were lost with one shard, the shard is taken to be the cause.
LOSSES_OF_A_SHARD = 3
# At a time, by all streams of a run together.
MOST_SHARDS_ASKED = 10_000


class Holder:
    """An actor that computes on a device; the models of its work stay in its process."""

    def __init__(self, threads: int) -> None:
        self._threads, self._device = threads, threading.Lock()

    def ready(self) -> None:
        """Return once the actor runs, with the resources that it asked for."""

    def make(self, batch: pa.Table, stream: Stream) -> pa.Table:
        """See ``stages.make_shards``."""
        return make_shards(batch, stream, self._threads, self._device)


@dataclass
class Held:
    """A holder, how many shards it has to make, and, if none, since when it has had none."""

    actor: Any
    ready: bool = False
    shards: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        return self.ready and not self.shards


@dataclass
class Group:
    """The holders of one model, and how many shards each stream asks of them."""

    resources: Resources
    held: list[Held] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    failure: RayError | None = None

    def free(self) -> Held | None:
        """The holder with the fewest shards to make, or None if none can take another one."""
        able = [one for one in self.held if one.ready and one.shards < SHARDS_AT_A_TIME]
        return min(able, key=lambda one: one.shards, default=None)

    def lacks(self) -> int:
        """How many more holders must be started for the shards asked for, up to label_actors."""
        return min(self.asked.total(), self.resources.label_actors) - len(self.held)

    def wants(self) -> int:
        """How many more holders may be started if the cluster has room: each stream may have as
        many as it would have alone."""
        most = self.resources.label_workers * len(self.asked)
        return min(self.asked.total(), most) - len(self.held)


class Holders:
    """Starts holders, hands them shards, and gives them back."""

    def __init__(self, held_seconds: float = HELD_SECONDS) -> None:
        self._held_seconds = held_seconds
        self._groups: dict[Hashable, Group] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looks_with_waiting = 0

    async def make(
        self, batch: list["ray.ObjectRef[pa.Table]"], stream: Stream, resources: Resources
    ) -> pa.Table:
        """Have a holder make the shard of the batch. The batch comes as a list of its reference, so
        that only the holder fetches it.

        Raises RayError if LOSSES_OF_A_SHARD holders were lost with the shard.
        """
        if not self._tasks:
            self._spawn(self._look())
        options = tuple(sorted(resources.device_options().items()))
        key = stream.work.model_key(), options, resources.threads
        group = self._groups.setdefault(key, Group(resources))
        group.resources = resources
        group.asked[stream.shards] += 1
        try:
            for tries_left in reversed(range(LOSSES_OF_A_SHARD)):
                try:
                    held = await self._free(group)
                    return await self._made(group, held, batch[0], stream)
                except RayActorError as error:
                    if not tries_left:
                        raise
                    LOGGER.warning("a labeling actor was lost: %s", error)
        finally:
            group.asked -= Counter([stream.shards])  # keeps what is above 0
        raise AssertionError("the last try returns or raises")

    async def _free(self, group: Group) -> Held:
        """Wait for a holder of the group that can take a shard, and count one as given to it."""
        async with self._changed:
            while True:
                for _ in range(group.lacks()):
                    self._start(group)
                if held := group.free():
                    held.shards += 1
                    return held
                if group.failure:
                    failure, group.failure = group.failure, None
                    raise failure
                await self._changed.wait()

    async def _made(
        self, group: Group, held: Held, batch: "ray.ObjectRef[pa.Table]", stream: Stream
    ) -> pa.Table:
        try:
            return await held.actor.make.remote(batch, stream)
        except RayActorError:
            self._end(group, held)
            raise
        finally:
            held.shards -= 1
            held.since = time.monotonic()
            await self._tell()

    def _start(self, group: Group) -> None:
        actor = ray.remote(Holder).options(
            max_concurrency=SHARDS_AT_A_TIME, **group.resources.device_options()
        )
        held = Held(actor.remote(group.resources.threads))
        group.held.append(held)
        self._spawn(self._started(group, held))

    async def _started(self, group: Group, held: Held) -> None:
        try:
            await held.actor.ready.remote()
            held.ready, held.since = True, time.monotonic()
        except RayActorError as error:
            if held in group.held:  # else it was given back before it had started
                self._end(group, held)
                group.failure = error
        await self._tell()

    def _end(self, group: Group, held: Held) -> None:
        """End the holder, once: several of its shards may find it dead."""
        if held in group.held:
            group.held.remove(held)
            ray.kill(held.actor)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._grow()
                await self._give_back()
            except Exception:  # the cluster does not answer now; it will be asked again
                LOGGER.exception("holders")

    async def _grow(self) -> None:
        """Start one more holder of each group that has work for it, if the cluster has room."""
        for group in list(self._groups.values()):
            if group.wants() > 0 and await asyncio.to_thread(has_room, group.resources):
                self._start(group)

    async def _give_back(self) -> None:
        """End the holders that have been idle for too long and those that are not ready while their
        group is asked for nothing. If something waits for resources that idle holders take, also
        end the one of these that has been idle for longest."""
        for key, group in list(self._groups.items()):
            for held in list(group.held):
                idle = held.idle and time.monotonic() - held.since > self._held_seconds
                if idle or (not held.ready and not group.asked):
                    self._end(group, held)
            if not group.held and not group.asked:
                del self._groups[key]
        found = [(held.since, group, held) for group, held in self._all() if held.idle]
        waited_for = await asyncio.to_thread(_waited_for) if found else set()
        useful = [one for one in found if waited_for & _taken(one[1].resources)]
        self._looks_with_waiting = self._looks_with_waiting + 1 if useful else 0
        if self._looks_with_waiting >= LOOKS:
            _, group, held = min(useful, key=lambda one: one[0])
            if held.idle:  # it may have got work while the cluster was asked
                self._end(group, held)

    def _all(self) -> list[tuple[Group, Held]]:
        return [(group, held) for group in self._groups.values() for held in group.held]


def start_holders() -> Any:
    """The handle of this job's Holders, an actor that ends with the process that first calls this
    function: in a run, that is the driver."""
    return _started_for(ray.get_runtime_context().get_job_id())


@cache
def _started_for(job: str) -> Any:
    """The handle, cached for the life of this process: Ray ends an actor once no handle to it is
    left."""
    options = {
        "name": f"holders-{job}",
        "namespace": NAMESPACE,
        "get_if_exists": True,
        "num_cpus": 0,
        "resources": {"node:__internal_head__": 0.001},
        "max_restarts": -1,
        "max_task_retries": -1,
        "max_concurrency": MOST_SHARDS_ASKED,
    }
    return ray.remote(Holders).options(**options).remote()


def relay_shards(
    batch: pa.Table, stream: Stream, resources: Resources, holders: Any
) -> Iterator[pa.Table]:
    """Have holders make the shards of the batch, which has a row for each, and yield what
    ``stages.make_shards`` returns for them. If holders have a device, the shards are prepared here,
    the next ones while one is computed."""
    rows = (batch.slice(row, 1) for row in range(len(batch)))
    given: deque[tuple[pa.Table, ray.ObjectRef[pa.Table]]] = deque()
    for row in prepare_shards(batch, stream) if resources.preparing_cpus else rows:
        given.append((row, holders.make.remote([ray.put(row)], stream, resources)))
        if len(given) == SHARDS_AHEAD:
            yield _made(stream, *given.popleft())
    while given:
        yield _made(stream, *given.popleft())


def _made(stream: Stream, row: pa.Table, made: "ray.ObjectRef[pa.Table]") -> pa.Table:
    try:
        return ray.get(made)
    except RayError as error:
        LOGGER.exception("a shard of %s", stream.input)
        return failed_shards(row, LostError(f"its actor was lost: {error}"))


def _taken(resources: Resources) -> set[str]:
    return {"GPU", "CPU"} if resources.gpus else {"CPU"}


def _waited_for() -> set[str]:
    """Names of the resources for which tasks, actors or placement groups of any job wait."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    demands = status.resource_demands
    kinds = [*demands.ray_task_actor_demand, *demands.placement_group_demand]
    return {
        name
        for kind in kinds
        for request in kind.bundles_by_count
        for name, amount in request.bundle.items()
        if amount
    }
