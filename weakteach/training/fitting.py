"""How a training fits the devices of its workers, found out where it runs."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from weakteach.artifacts.errors import StepError
from weakteach.models.loading import device
from weakteach.models.memory import (
    Fit,
    choose_fit,
    shape_of,
    starting_memory,
    tokens_at_once,
    training_memory,
    ways_to_fit,
)
from weakteach.models.tokens import PairTokens
from weakteach.training.recipes import Lora
from weakteach.training.worker import TrainingJob, from_all, world_size

GIB = 1 << 30


def find_fit(job: TrainingJob, model: PreTrainedModel, pairs: Sequence[PairTokens]) -> Fit:
    """The way to fit a training: the one that was asked for or, with ``auto``, the first that fits
    the smallest device of the workers, by an estimate from the model's shape and the longest pair.
    Without an estimate, as on CPUs, it is the first way.

    Raises StepError if none fits, or if shards are asked for that cannot be.
    """
    workers, asked = world_size(), job.resources.fit
    lora: Lora | None = job.recipe.lora
    ways = ways_to_fit(asked, workers)
    has_head = model.get_output_embeddings() is None
    over_nf4 = bool(lora and lora.over_nf4)
    # No shards of 4 bits, nor of a reward head's adapters, which are merged at the end.
    if over_nf4 or (lora and has_head):
        ways = [way for way in ways if way.shards == 1]
    room = _room(job.resources.gpus)
    if room is None:
        ways = [way for way in ways if way.shards == 1]
    if not ways:
        raise StepError(
            f"--fit {asked}: "
            + (
                "a training without GPUs is not sharded"
                if room is None
                else "a base in 4 bits is not sharded"
                if over_nf4
                else "a reward head over adapters is not sharded"
            )
        )
    shape = shape_of(model.config.to_dict())
    if asked != "auto" or room is None or shape is None:
        return ways[0]
    share = max(1, job.recipe.schedule.batch // workers)
    rows = 2 if any(pair.response_2 for pair in pairs) else 1
    longest = max(pair.longest for pair in pairs)
    tokens = tokens_at_once(share, rows, longest, job.resources.train_tokens)
    rank = lora.rank if lora else 0
    if fit := choose_fit(shape, tokens, job.dtype, rank, workers, room, ways, over_nf4):
        return fit
    last = training_memory(shape, tokens, job.dtype, rank, workers, ways[-1], over_nf4)
    needed = last.on_gpu
    raise StepError(
        f"Training takes about {needed / GIB:.0f} GiB of a GPU that has {room / GIB:.0f}: have "
        "more workers (--train-workers), LoRA, or a smaller --train-tokens; --fit whole tries it "
        "all the same"
    )


def require_room(job: TrainingJob, model: PreTrainedModel) -> None:
    """Raises StepError if, by the estimate, the smallest device of the workers has no room for the
    whole model, which DPO reads before anything is sharded. Nothing is checked if a fit was asked
    for."""
    room, shape = _room(job.resources.gpus), shape_of(model.config.to_dict())
    if job.resources.fit != "auto" or room is None or shape is None:
        return
    lora: Lora | None = job.recipe.lora
    rank, over_nf4 = (lora.rank, lora.over_nf4) if lora else (0, False)
    needed = starting_memory(shape, job.resources.batch_tokens, job.dtype, rank, over_nf4).on_gpu
    if needed > room:
        raise StepError(
            f"DPO reads the model whole before it trains, which takes about {needed / GIB:.0f} GiB "
            f"of a GPU that has {room / GIB:.0f}: a smaller --batch-tokens, another --gpu-type, or "
            "--lora-base nf4 of sweeps; --fit sharded tries it all the same"
        )


def placed(model: PreTrainedModel, fit: Fit) -> PreTrainedModel:
    """Move the model to this worker's device, or to the host's memory if the trainer is to shard
    it."""
    torch.nn.Module.to(model, device() if fit.shards == 1 else "cpu")
    return model


def _room(gpus: float) -> float | None:
    """Bytes of the smallest device of all workers, or of a worker's share of it; None if a worker
    has no CUDA device."""
    mine = None
    if torch.cuda.is_available():
        mine = torch.cuda.get_device_properties(device()).total_memory * min(1.0, gpus or 1.0)
    known = from_all(mine)
    return None if None in known else min(known)
