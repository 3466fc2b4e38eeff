"""Running a training function under Ray Train: in this process, or on a group of workers.

Losing workers or nodes is no failure of the training: it goes on from its last checkpoint. An
exception that the training raises is a failure, and is not tried again for ever.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from ray.exceptions import RayError
from ray.train import ControllerError, WorkerGroupError
from ray.train.torch import TorchConfig
from ray.train.v2._internal.exceptions import (
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

from weakteach.artifacts.errors import LostError, StepError
from weakteach.artifacts.step import Progress
from weakteach.models.resources import Resources
from weakteach.models.room import has_room, waits_told
from weakteach.training.trainer import EndingTrainer
from weakteach.training.worker import TrainingJob

CONTROLLER_FAILURES = 2
# Errors of a worker that is gone; any other error of a worker was raised by the training.
GONE = (RayError, WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)


def launch(
    train: Callable[[dict[str, Any]], dict[str, Any]],
    job: TrainingJob,
    name: str,
    storage: str,
    scratch: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run ``train({"job": job})`` and return what rank 0 returned.

    With 0 workers it runs here, in Ray Train's local mode, and resumes from the trainer's own
    checkpoints. Otherwise a run of that ``name`` under ``storage``, a URL, goes on from the last
    checkpoint that it reported. ``progress`` is told while the run waits for its workers; a file in
    ``scratch``, a folder of the job's store, shows when they are there. Raises LostError if what it
    runs on is lost too often, StepError with the cause if training fails for good, and StepError at
    once if the workers cannot share a batch evenly.
    """
    resources = job.resources
    batch, workers = job.recipe.schedule.batch, resources.train_workers
    if workers and batch % workers:
        raise StepError(f"A batch of {batch} cannot be shared evenly by {workers} workers")
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = EndingTrainer(
        train,  # what it returns is in the result
        train_loop_config={"job": job},
        # torch's name for the backend that suits the worker's device. Ray's default is the one for
        # GPUs wherever a GPU was asked for.
        torch_config=TorchConfig(backend="undefined"),
        scaling_config=ScalingConfig(
            num_workers=resources.train_workers,
            use_gpu=resources.gpus > 0,
            accelerator_type=resources.gpu_type or None,
            resources_per_worker=None if resources.train_workers == 0 else _per_worker(resources),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(
                max_failures=resources.max_failures, controller_failure_limit=CONTROLLER_FAILURES
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )

    def tell(waits: bool) -> None:
        if progress:
            progress(0, 0, waits=waits)

    room, told = partial(has_room, resources, workers), tell if progress and workers else None
    if told:
        told(False)
    try:
        with waits_told(job.store, scratch, told, room) as trainer.sign:
            result = trainer.fit()
    except WorkerGroupError as error:
        failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
        lost = [why for why in failures if isinstance(why, GONE)]
        # When one worker is lost, others fail at once because it is missing.
        kind, cause = (LostError, lost[0]) if lost else (StepError, failures[0])
        raise kind(f"Training of {name} failed: {cause}") from error
    except ControllerError as error:
        raise LostError(f"Training of {name} failed: {error.controller_failure}") from error
    except RayError as error:
        raise LostError(f"Training of {name} lost its controller: {error}") from error
    facts: Any = result.return_value  # type: ignore[attr-defined]  # as above
    if not isinstance(facts, dict):
        raise StepError(f"Training of {name} ended without a result")
    return facts


def _per_worker(resources: Resources) -> dict[str, float]:
    wanted = {"CPU": resources.cpus}
    return wanted | {"GPU": resources.gpus} if resources.gpus else wanted
