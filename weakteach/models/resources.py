"""How to run: devices, workers, batch sizes. Never part of a step's identity."""

from dataclasses import dataclass
from typing import Any, Literal

from weakteach.artifacts.errors import UserError

Dtype = Literal["float32", "bfloat16"]
Attention = Literal["sdpa", "flex"]


@dataclass(frozen=True)
class Resources:
    """What a step may use.

    ``train_workers`` 0 trains in the calling process (Ray Train's local mode), which pays no
    process start; from 1 on, a group of that many data-parallel workers is started.
    ``label_actors`` 0 runs labeling and generation as Ray tasks in reused worker processes,
    ``label_tasks`` of them at a time; from 1 on, a fixed pool of that many actors holds the model,
    which grows up to ``label_actors_max``, if that is given, where the cluster has room.
    ``gpus`` and ``cpus`` are per worker, task or actor; ``gpu_type`` is a GPU's name in Ray, such
    as A100, and empty where any will do. ``threads`` are torch threads in each.
    ``train_tokens`` is the largest number of tokens that one device takes at once in training,
    ``batch_tokens`` that of one labeling or generation batch, padding included where there is any.
    ``attention`` is how pairs are read, in labeling and training: "flex", on CUDA, skips what the
    mask hides. ``token_metrics`` has trainings log what costs passes over the logits and what
    nothing here reads: entropy, accuracy of tokens and mean logits.
    """

    train_workers: int = 0
    label_actors: int = 0
    label_actors_max: int = 0
    label_tasks: int = 1
    gpus: float = 0.0
    gpu_type: str = ""
    cpus: float = 1.0
    threads: int = 1
    train_tokens: int = 8192
    batch_tokens: int = 8192
    dtype: Dtype = "float32"
    attention: Attention = "sdpa"
    token_metrics: bool = False
    checkpoint_steps: int = 200
    max_failures: int = 2

    def __post_init__(self) -> None:
        if self.label_actors_max and not 0 < self.label_actors <= self.label_actors_max:
            raise UserError(
                f"A pool of {self.label_actors} labeling actors cannot grow up to "
                f"{self.label_actors_max}: it must start with at least 1 and at most that many"
            )

    @property
    def label_workers(self) -> int:
        """Tasks or actors that label at a time, as many as there may be."""
        return max(self.label_actors, self.label_actors_max) or self.label_tasks

    def device_options(self) -> dict[str, Any]:
        """Ray's options for a task or actor that uses these devices."""
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.gpu_type:
            options["accelerator_type"] = self.gpu_type
        return options
