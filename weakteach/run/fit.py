"""The memory that the steps of a plan take, and how their trainings are made to fit."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from weakteach.artifacts.step import Step
from weakteach.evaluation.gold import RewardModel
from weakteach.models.memory import (
    DTYPE_BYTES,
    Fit,
    Memory,
    Shape,
    generation_memory,
    reading_memory,
    training_memory,
    ways_to_fit,
)
from weakteach.models.resources import GIB, Resources, room_of
from weakteach.models.size import shape_for
from weakteach.models.spec import Model
from weakteach.run.plan import model_of
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import GoldLabels, WeakLabels
from weakteach.steps.training import (
    Dpo,
    RewardHead,
    Sft,
    before_training,
    is_over_nf4,
    plan_fit,
    rank_of,
    spread,
    tokens_of,
)


@dataclass(frozen=True)
class Footprint:
    """The bytes that steps of a kind take of a device with a model: ``whole`` if nothing is done to
    make them fit, ``fitted`` if they are made to fit. ``fit`` is None where no way is found, and
    for steps that train nothing. ``before`` are the bytes that are taken before a training is made
    to fit; ``whole`` and ``fitted`` are not less. ``loaded`` are the bytes that each of the
    ``workers`` loads into the memory of its host."""

    kind: str
    model: str
    whole: float
    fitted: float
    fit: Fit | None
    trains: bool
    before: float = 0.0
    loaded: float = 0.0
    workers: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind} of {self.model}"

    @property
    def read_whole(self) -> bool:
        """Whether it takes the most bytes before it is made to fit and trains."""
        return self.before >= self.fitted

    @property
    def how(self) -> str:
        """How a training is made to fit, in words; empty for other steps."""
        if not self.trains:
            return ""
        if self.fit is None:
            return "does not fit" + (": DPO first reads it whole" if self.read_whole else "")
        shards = f"sharded over {self.fit.shards}" if self.fit.shards > 1 else "whole"
        return shards + (", checkpointed" if self.fit.activation_checkpointing else "")

    @property
    def remedy(self) -> str:
        """What a user can do if it takes too much."""
        if not self.trains:
            return "a smaller --batch-tokens, or another --gpu-type"
        if self.read_whole:
            return (
                "a smaller --batch-tokens, another --gpu-type, or --lora-base nf4 of sweeps: DPO "
                "reads it whole before it is sharded"
            )
        return "more --train-workers to shard it over, another --gpu-type, or --sft-lora of sweeps"


def footprints(
    steps: Iterable[Step], resources: Resources, length: int, room: float | None = None
) -> list[Footprint]:
    """The largest footprint of each kind of step with each model, for pairs of ``length`` tokens.
    Models of unknown size are left out. ``room`` is the bytes of a GPU; without it, they follow
    from the GPU's type."""
    found: dict[tuple[str, str], Footprint] = {}
    shapes: dict[Model, Shape | None] = {}
    for step in steps:
        model = model_of(step)
        if model is None:
            continue
        if model not in shapes:
            shapes[model] = shape_for(model)
        shape = shapes[model]
        if shape and (one := _footprint(step, model.label, shape, resources, length, room)):
            key = (one.kind, one.model)
            found[key] = max(one, found.get(key, one), key=lambda each: each.fitted)
    return list(found.values())


def _footprint(
    step: Step, model: str, shape: Shape, resources: Resources, length: int, room: float | None
) -> Footprint | None:
    kind = type(step).__name__
    if not isinstance(step, Sft | Dpo | RewardHead):
        if (memory := plan_memory(step, shape, resources, length)) is None:
            return None
        taken = _bytes(memory, resources)
        return Footprint(kind, model, taken, taken, None, trains=False)
    resources = spread(step, shape, resources, length)
    room = room_of(resources) if room is None else room
    fit = plan_fit(step, shape, resources, length, math.inf if room is None else room)
    last = ways_to_fit(resources.fit, max(1, resources.train_workers))[-1]
    # A CPU has room for what it trains, whatever it read before.
    first = before_training(step, shape, resources) if resources.gpus else None
    before = _bytes(first, resources) if first else 0.0
    whole, fitted = (
        max(before, _bytes(training_of(step, shape, resources, length, way), resources))
        for way in (None, fit or last)
    )
    # A base that is quantized to 4 bits is read piece by piece.
    size = DTYPE_BYTES[step.dtype if rank_of(step) else "float32"]
    loaded = 0.0 if is_over_nf4(step) else float(size * shape.parameters)
    workers = max(1, resources.train_workers)
    return Footprint(kind, model, whole, fitted, fit, True, before, loaded, workers)


def _bytes(memory: Memory, resources: Resources) -> float:
    return memory.on_gpu if resources.gpus else memory.total


def memory_table(found: Iterable[Footprint], resources: Resources) -> Table:
    """A table that shows, for each kind of step and way to fit, the model that takes most."""
    device = "GPU" if resources.gpus else "process"
    table = Table(title=f"GiB of a {device}, estimated", title_justify="left")
    for heading in ("step", "largest model", "GiB", "made to fit", "GiB then"):
        table.add_column(heading, justify="right" if "GiB" in heading else "left")
    largest: dict[tuple[str, str], Footprint] = {}
    for one in found:
        key = (one.kind, one.how)
        largest[key] = max(largest.get(key, one), one, key=lambda each: each.whole)
    for one in largest.values():
        numbers = f"{one.whole / GIB:,.1f}", f"{one.fitted / GIB:,.1f}"
        table.add_row(one.kind, one.model, numbers[0], one.how, numbers[1])
    return table


def plan_memory(
    step: Step, shape: Shape, resources: Resources, length: int, fit: Fit | None = None
) -> Memory | None:
    """What a step takes of one device if its model has the given shape and a prompt and a response
    are ``length`` tokens together; None for kinds of steps without an estimate. A training is made
    to fit as ``fit`` says, or not at all without it. Generation takes the model's weights and the
    keys and values of a batch."""
    match step:
        case Sft() | Dpo() | RewardHead():
            return training_of(step, shape, resources, length, fit)
        case WeakLabels(teacher=Dpo(recipe=recipe)):
            models = 1 if recipe.lora else 2
            return reading_memory(shape, resources.batch_tokens, step.dtype, models)
        case GoldReward(gold=RewardModel(dtype=dtype)) | GoldLabels(gold=RewardModel(dtype=dtype)):
            return reading_memory(shape, resources.batch_tokens, dtype)
        case WeakLabels(dtype=dtype):
            return reading_memory(shape, resources.batch_tokens, dtype)
        case Generate(dtype=dtype):
            return generation_memory(shape, step.batch_tokens(resources), dtype)
        case _:
            return None


def training_of(
    step: Sft | Dpo | RewardHead,
    shape: Shape,
    resources: Resources,
    length: int,
    fit: Fit | None = None,
) -> Memory:
    """What a training takes of one device; the parameters are those of ``plan_memory``."""
    tokens, rank = tokens_of(step, resources, length), rank_of(step)
    workers = max(1, resources.train_workers)
    return training_memory(shape, tokens, step.dtype, rank, workers, fit, is_over_nf4(step))
