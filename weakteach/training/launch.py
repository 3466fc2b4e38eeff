"""Running a training function under Ray Train: in this process, or on a group of workers."""

import logging
from collections.abc import Callable
from typing import Any

from ray.train import (
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer

from weakteach.artifacts.errors import StepError
from weakteach.models.resources import Resources
from weakteach.training.worker import TrainingJob

CONTROLLER_FAILURES = 2


def launch(
    train: Callable[[dict[str, Any]], dict[str, Any]],
    job: TrainingJob,
    name: str,
    storage: str,
) -> dict[str, Any]:
    """Run ``train({"job": job})`` and return what rank 0 returned.

    With 0 workers it runs here, in Ray Train's local mode, and resumes from the trainer's own
    checkpoints. Otherwise a run of that ``name`` under ``storage``, a URL, goes on from the last
    checkpoint that it reported. Raises StepError with the cause when training fails for good.
    """
    resources = job.resources
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = TorchTrainer(
        train,  # type: ignore[arg-type]  # what it returns is in the result
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=resources.train_workers,
            use_gpu=resources.gpus > 0,
            accelerator_type=resources.gpu_type or None,
            resources_per_worker=None if resources.train_workers == 0 else _per_worker(resources),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(  # type: ignore[call-arg]  # typed as Train's first version
                max_failures=resources.max_failures, controller_failure_limit=CONTROLLER_FAILURES
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        result = trainer.fit()
    except WorkerGroupError as error:
        cause = error.worker_failures[min(error.worker_failures)]
        raise StepError(f"Training of {name} failed: {cause}") from error
    except ControllerError as error:
        raise StepError(f"Training of {name} failed: {error.controller_failure}") from error
    facts: Any = result.return_value  # type: ignore[attr-defined]  # as above
    if not isinstance(facts, dict):
        raise StepError(f"Training of {name} ended without a result")
    return facts


def _per_worker(resources: Resources) -> dict[str, float]:
    wanted = {"CPU": resources.cpus}
    return wanted | {"GPU": resources.gpus} if resources.gpus else wanted
