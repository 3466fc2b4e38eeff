"""The memory of the steps of a plan, and how their trainings are made to fit."""

from weakteach.artifacts.step import Step
from weakteach.evaluation.gold import RewardModel
from weakteach.models.memory import (
    Fit,
    Memory,
    Shape,
    choose_fit,
    reading_memory,
    tokens_at_once,
    training_memory,
    ways_to_fit,
)
from weakteach.models.resources import Resources
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import GoldLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft


def plan_memory(step: Step, shape: Shape, resources: Resources, length: int) -> Memory | None:
    """What a step takes of one device whose model has that shape, with prompts and responses of
    ``length`` tokens together; None for steps that use none. Generation is its weights and the keys
    and values of a batch."""
    match step:
        case Sft() | Dpo() | RewardHead():
            tokens, rank = _tokens(step, resources, length), _rank(step)
            workers = max(1, resources.train_workers)
            return training_memory(shape, tokens, step.dtype, rank, workers)
        case WeakLabels(teacher=Dpo(recipe=recipe)):
            models = 1 if recipe.lora else 2
            return reading_memory(shape, resources.batch_tokens, step.dtype, models)
        case GoldReward(gold=RewardModel(dtype=dtype)) | GoldLabels(gold=RewardModel(dtype=dtype)):
            return reading_memory(shape, resources.batch_tokens, dtype)
        case WeakLabels(dtype=dtype):
            return reading_memory(shape, resources.batch_tokens, dtype)
        case Generate(dtype=dtype):
            read = reading_memory(shape, resources.batch_tokens, dtype)
            return read.with_cache(shape, resources.batch_tokens, dtype)
        case _:
            return None


def plan_fit(
    step: Sft | Dpo | RewardHead, shape: Shape, resources: Resources, length: int, room: float
) -> Fit | None:
    """How the step fits a GPU of ``room`` bytes; None if it does not."""
    workers = max(1, resources.train_workers)
    tokens, ways = _tokens(step, resources, length), ways_to_fit(resources.fit, workers)
    return choose_fit(shape, tokens, step.dtype, _rank(step), workers, room, ways)


def _tokens(step: Sft | Dpo | RewardHead, resources: Resources, length: int) -> int:
    share = max(1, step.recipe.schedule.batch // max(1, resources.train_workers))
    rows = 1 if isinstance(step, Sft) else 2
    return tokens_at_once(share, rows, length, resources.train_tokens)


def _rank(step: Sft | Dpo | RewardHead) -> int:
    return step.recipe.lora.rank if step.recipe.lora else 0
