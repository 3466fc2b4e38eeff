"""The memory of the steps of a plan, and how their trainings are made to fit."""

from weakteach.artifacts.step import Step
from weakteach.evaluation.gold import WorldGold
from weakteach.models.memory import Fit, Memory, Shape, choose_fit, reading_memory, training_memory
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
            return training_memory(shape, tokens, resources.dtype, rank, workers)
        case WeakLabels(teacher=Dpo(recipe=recipe)):
            models = 1 if recipe.lora else 2
            return reading_memory(shape, resources.batch_tokens, resources.dtype, models)
        case GoldReward(gold=WorldGold()) | GoldLabels(gold=WorldGold()):
            return None
        case WeakLabels() | GoldReward() | GoldLabels():
            return reading_memory(shape, resources.batch_tokens, resources.dtype)
        case Generate():
            read = reading_memory(shape, resources.batch_tokens, resources.dtype)
            return read.with_cache(shape, resources.batch_tokens, resources.dtype)
        case _:
            return None


def plan_fit(
    step: Sft | Dpo | RewardHead, shape: Shape, resources: Resources, length: int, room: float
) -> Fit | None:
    """How the step fits a GPU of ``room`` bytes; None if it does not."""
    workers = max(1, resources.train_workers)
    tokens = _tokens(step, resources, length)
    return choose_fit(shape, tokens, resources.dtype, _rank(step), workers, room)


def _tokens(step: Sft | Dpo | RewardHead, resources: Resources, length: int) -> int:
    """Tokens that a device reads at once: rows of a batch, two for a pair unless SFT."""
    share = max(1, step.recipe.schedule.batch // max(1, resources.train_workers))
    rows = min(share, resources.device_batch)
    return rows * length * (1 if isinstance(step, Sft) else 2)


def _rank(step: Sft | Dpo | RewardHead) -> int:
    return step.recipe.lora.rank if step.recipe.lora else 0
