"""How far a study is and what it took, as metrics of Ray, for its dashboard and Prometheus."""

import logging
import time
from collections.abc import Collection, Iterable
from functools import cache

from ray.util import metrics

from weakteach.artifacts.inventory import State, take_inventory
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.run.prices import Rate
from weakteach.run.progress import Listing

LOGGER = logging.getLogger(__name__)


class StudyMetrics:
    """Sets the gauges of one study; made in the driver, under a running Ray.

    What a step took counts once it is done. As in a plan, there is a cost for each of the
    ``rates``: what all device-hours would cost if all of them were on nodes of its type.
    """

    def __init__(
        self, study: str, store: Store, steps: Iterable[Step], rates: Iterable[Rate] = ()
    ) -> None:
        self._study, self._store, self._rates = study, store, tuple(rates)
        self._kinds = {step.fingerprint: type(step).__name__ for step in steps}
        self._device_seconds: dict[str, float] = {}
        self._staged: set[str] = set()
        self._listing = Listing(store)

    def update(self, targets: Iterable[Step], existing: set[str], failed: Collection[str]) -> None:
        """Set the gauges, given the fingerprints of the steps that exist and of the targets that
        failed for good.

        A missing step counts as failed if only failed targets need it, else as running or waiting.
        """
        self._list()
        for fingerprint in existing - self._device_seconds.keys():
            record = self._store.record_of(self._kinds[fingerprint], fingerprint)
            self._device_seconds[fingerprint] = record["device_seconds"] if record else 0.0
        missing = [target for target in targets if target.fingerprint not in existing]
        needed = _missing(missing, existing, leave=failed)
        running = self._staged & needed
        states = {
            "done": len(existing),
            "running": len(running),
            "waiting": len(needed - running),
            "failed": len(_missing(missing, existing) - needed),
        }
        steps, hours, cost, _ = _gauges()
        for state, count in states.items():
            steps.set(count, {"study": self._study, "state": state})
        device_hours = sum(self._device_seconds.values()) / 3600
        hours.set(device_hours, {"study": self._study})
        for rate in self._rates:
            tags = {"node_type": rate.node_type, "currency": rate.currency}
            cost.set(device_hours * rate.device_hour, {"study": self._study, **tags})

    def _list(self) -> None:
        if not self._listing.due:
            return
        started = time.monotonic()
        try:
            inventory = take_inventory(self._store)
        except OSError as error:  # a storage that fails must not end the metrics
            LOGGER.warning("%s cannot be listed: %s", self._store.url, error)
        else:
            staged = (item for item in inventory.items if item.state == State.STAGE)
            self._staged = {item.fingerprint for item in staged}
            *_, size = _gauges()
            size.set(inventory.size, {"storage": self._store.url.partition("?")[0]})
        self._listing.done(started)


def _missing(targets: Iterable[Step], existing: set[str], leave: Collection[str] = ()) -> set[str]:
    found = walk(target for target in targets if target.fingerprint not in leave)
    return {step.fingerprint for step in found} - existing


@cache
def _gauges() -> tuple[metrics.Gauge, metrics.Gauge, metrics.Gauge, metrics.Gauge]:
    """The gauges of steps, device-hours, cost and bytes, made once in each process."""
    return (
        metrics.Gauge("weakteach_steps", "Steps of a study by state", ("study", "state")),
        metrics.Gauge("weakteach_device_hours", "Taken by steps that are done", ("study",)),
        metrics.Gauge(
            "weakteach_cost",
            "Of those device-hours, had they all been on nodes of the type",
            ("study", "node_type", "currency"),
        ),
        metrics.Gauge("weakteach_store_bytes", "All files of the storage", ("storage",)),
    )
