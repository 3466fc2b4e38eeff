"""How to run: devices, workers, batch sizes.

These settings change no result beyond the order in which numbers are summed, so they are no part
of a step's identity; records say which were used.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from weakteach.artifacts.errors import UserError

Attention = Literal["sdpa", "flex"]
# How a training is made to fit its device: a whole copy on each worker or shards of one (FSDP),
# each with activations kept or computed again (checkpointed).
FITS = ("whole", "whole-checkpointed", "sharded", "sharded-checkpointed")
FitName = Literal["auto", "whole", "whole-checkpointed", "sharded", "sharded-checkpointed"]
GIB = 1 << 30
# Memory of a GPU by its name in Ray, in GiB, as CUDA reports it, which is less than what it is sold
# with: of the smallest that has the name.
GPU_GIB: dict[str, float] = {
    "T4": 14.6, "V100": 15.8, "A10G": 22, "L4": 22, "L40S": 44.4, "A100": 39.4, "A100-40G": 39.4,
    "A100-80G": 79.2, "H100": 79.1, "H200": 139.8, "B200": 178,
}  # fmt: skip
AT_LEAST_ONE = {"label_tasks", "threads", "train_tokens", "batch_tokens"}


@dataclass(frozen=True)
class Resources:
    """What a step may use. Every field is an option of the commands, with its docstring as help."""

    train_workers: int = 0
    """Data-parallel training workers; 0 trains in the trial, which starts no processes."""
    train_workers_max: int = 0
    """Workers over which a training is spread that does not fit the GPUs of those; no more of them
    without, nor where --train-workers is given alone."""
    label_actors: int = 0
    """Actors that label, generate and score, each with a model, which outlive a step and serve all
    arms; 0 does so in Ray tasks."""
    label_actors_max: int = 0
    """Actors at work for a step, up to which there may be more where the cluster has room; fixed
    without."""
    label_tasks: int = 1
    """Tasks that label at a time, where there are no actors."""
    gpus: float = 0.0
    """GPUs of each worker, task and actor, and of a trial that trains in its own process: at most
    1, as each computes on one device; 0.5 shares one."""
    gpu_type: str = ""
    """GPU by its name in Ray, such as A100 or L4; any for any."""
    cpus: float = 1.0
    """CPUs of each worker, task and actor, as Ray counts them."""
    threads: int = 1
    """Torch threads of each process."""
    train_tokens: int = 8192
    """Most tokens that a device takes at once in training."""
    batch_tokens: int = 8192
    """Tokens of a batch of labeling or generation, with its padding."""
    attention: Attention = "sdpa"
    """How pairs are read, in labeling and training: flex skips what the mask hides, is meant for
    CUDA, and slow on a CPU."""
    fit: FitName = "auto"
    """How a training fits its GPU: whole or sharded over its workers (FSDP), activations kept or
    checkpointed; auto takes the first that an estimate says fits."""
    token_metrics: bool = False
    """Have trainings log entropy, accuracy of tokens and mean logits, which costs passes over the
    logits and which nothing here reads."""
    checkpoint_minutes: float = 10.0
    """Minutes from one checkpoint of a training to the next, by the time of its first updates."""
    checkpoint_steps: int = 0
    """Updates from one checkpoint of a training to the next, in place of minutes."""
    max_failures: int = 2
    """Workers of a training that may be lost before it fails."""

    def __post_init__(self) -> None:
        if self.gpus > 1:
            raise UserError(
                f"A worker of {self.gpus:g} GPUs would use one of them: give each 1, and have more "
                "workers (--train-workers, --label-actors)"
            )
        for item in fields(self):
            least = 1 if item.name in AT_LEAST_ONE else 0
            value = getattr(self, item.name)
            if isinstance(value, int | float) and not least <= value < math.inf:
                option = f"--{item.name.replace('_', '-')}"
                raise UserError(f"{option}: {value} is out of range, it must be at least {least}")
        if self.label_actors_max and not 0 < self.label_actors <= self.label_actors_max:
            raise UserError(
                f"A pool of {self.label_actors} labeling actors cannot grow up to "
                f"{self.label_actors_max}: it must start with at least 1 (--label-actors) and at "
                "most that many (--label-actors-max)"
            )
        if self.train_workers_max and not 0 < self.train_workers <= self.train_workers_max:
            raise UserError(
                f"--train-workers-max {self.train_workers_max}: it must be at least that of "
                f"--train-workers, and that at least 1, but is {self.train_workers}"
            )
        most = max(self.train_workers, self.train_workers_max)
        if self.fit.startswith("sharded") and not (self.gpus and most > 1):
            raise UserError(
                f"--fit {self.fit} shards a model over the GPUs of several workers: ask for them "
                "with --train-workers and --gpus 1, or leave --fit out"
            )

    @property
    def label_workers(self) -> int:
        """The most tasks or actors that may label at a time."""
        return max(self.label_actors, self.label_actors_max) or self.label_tasks

    def device_options(self) -> dict[str, Any]:
        """Ray's options for a task or actor that uses these devices."""
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.gpu_type:
            options["accelerator_type"] = self.gpu_type
        return options

    @property
    def preparing_cpus(self) -> float:
        """CPUs of a task that prepares input for another one, which computes on a device. 0 without
        devices, where one process does both."""
        return min(self.cpus, 1.0) if self.gpus or self.gpu_type else 0.0

    @property
    def labeler_cpus(self) -> float:
        """CPUs of a task or actor that labels, and of the task that prepares its input."""
        return self.cpus + self.preparing_cpus

    def preparing_options(self) -> dict[str, Any]:
        """Ray's options for a task that prepares input. Without devices they equal those of the
        task or actor that computes, which makes Ray Data run both in one process."""
        return {"num_cpus": self.preparing_cpus} if self.preparing_cpus else self.device_options()

    def of_a_trial(self) -> dict[str, float]:
        """Resources, by Ray's names, of a trial that trains in its own process."""
        wanted = {"CPU": 1.0}
        if self.gpus:
            wanted["GPU"] = self.gpus
        if self.gpu_type:
            wanted[f"accelerator_type:{self.gpu_type}"] = 0.001
        return wanted


def room_of(resources: Resources) -> float | None:
    """Bytes of GPU memory that a worker has; None without GPUs, or if their type is unknown."""
    gib = GPU_GIB.get(resources.gpu_type)
    return None if gib is None or not resources.gpus else gib * GIB * min(1.0, resources.gpus)
