"""Ray's trainer, with a helper actor that does not outlive a killed controller, as Ray's own
does."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.train.v2._internal.callbacks import placement_group_callback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller.placement_group_cleaner import (
    PlacementGroupCleaner,
)
from ray.train.v2.torch.torch_trainer import TorchTrainer

from weakteach.artifacts.signs import Sign

LOGGER = logging.getLogger(__name__)


class EndingCleaner(PlacementGroupCleaner):
    """A detached actor that gives back the devices of a group whose controller was killed, then
    ends.

    Ray's own leaves by an exception in the thread that watches the controller, which ends that
    thread alone: the actor stays for as long as the cluster. On a host with several Rays, Ray's own
    does not know which one to ask, and that thread ends at once.
    """

    def start_monitoring(self) -> Any:
        if ray.is_initialized():
            os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        return super().start_monitoring()

    def _exit(self) -> None:
        if threading.current_thread() is self._monitor_thread:
            os._exit(0)
        super()._exit()


class EndingCleanerCallback(placement_group_callback.PlacementGroupCleanerCallback):
    def after_controller_start(self, train_run_context: Any) -> None:
        # In the controller's process, where Ray's callback makes its actor of the class so named.
        placement_group_callback.PlacementGroupCleaner = EndingCleaner  # type: ignore[misc]
        super().after_controller_start(train_run_context)


class GroupSigns(WorkerGroupCallback):
    """Puts a sign, in the controller's process, while a group has its workers."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._despite_errors(self._sign.take)

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._despite_errors(self._sign.put)

    def _despite_errors(self, do: Callable[[], None]) -> None:
        try:
            do()
        except OSError:  # the training goes on without the sign
            LOGGER.exception("%s", self._sign.path)


class EndingTrainer(TorchTrainer):
    """A TorchTrainer that leaves nothing behind when it is killed. Its groups put the ``sign``."""

    sign: Sign | None = None

    def _create_default_callbacks(self) -> list[Any]:
        of_ray = placement_group_callback.PlacementGroupCleanerCallback
        callbacks = super()._create_default_callbacks()
        assert any(isinstance(callback, of_ray) for callback in callbacks)
        signs = [GroupSigns(self.sign)] if self.sign else []
        return [EndingCleanerCallback() if isinstance(c, of_ray) else c for c in callbacks] + signs
