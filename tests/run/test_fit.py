"""The memory of a plan's steps, and how their trainings are made to fit."""

from fractions import Fraction

import pytest

from weakteach.evaluation.gold import RewardModel, WorldGold
from weakteach.models.memory import Fit, shape_of, training_memory
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model
from weakteach.preferences.sources import WorldSource
from weakteach.run.fit import plan_fit, plan_memory
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft
from weakteach.training.recipes import DpoRecipe, Lora, RewardRecipe, Schedule, SftRecipe

GIB = 1 << 30
SHAPE = shape_of(
    {"model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "num_hidden_layers": 32,
     "intermediate_size": 11_008, "num_attention_heads": 32}
)  # fmt: skip
MODEL = find_model("opt-45k")
SPLIT = Split(HeldOut(Pairs(WorldSource(64), ()), 16), Fraction(1, 2), 0)
LABELS = HumanLabels(SPLIT.labeled)
RESOURCES = Resources(train_workers=4, gpus=1, train_tokens=2048, batch_tokens=8192)
HALF = {"dtype": "bfloat16"}
FULL = Sft(MODEL, LABELS, SftRecipe(Schedule(1e-5, batch=32)), 0, **HALF)
TEACHER = Dpo(FULL, LABELS, DpoRecipe(Schedule(1e-5, batch=16), lora=Lora(8)), 0, **HALF)
WHOLE = Dpo(FULL, LABELS, DpoRecipe(Schedule(1e-5, batch=16), lora=None), 0, **HALF)


def memory(step):
    return plan_memory(step, SHAPE, RESOURCES, 512)


def test_what_each_kind_of_step_takes():
    assert memory(FULL) == training_memory(SHAPE, 4 * 512, "bfloat16", 0, 4)
    assert memory(TEACHER) == training_memory(SHAPE, 4 * 512, "bfloat16", 8, 4)
    head = RewardHead(MODEL, LABELS, RewardRecipe(Schedule(1e-5, batch=4)), 0, **HALF)
    assert memory(head).activations == memory(WHOLE).activations / 2  # two rows a worker
    weights = 2 * SHAPE.parameters
    adapters, models = (WeakLabels(step, SPLIT.unlabeled, **HALF) for step in (TEACHER, WHOLE))
    assert (memory(adapters).weights, memory(models).weights) == (weights, 2 * weights)
    gold = GoldLabels(SPLIT.unlabeled, RewardModel(MODEL, **HALF))
    assert memory(gold).weights == weights
    responses = Generate(TEACHER, SPLIT.unlabeled, 0, **HALF)
    cache = 2 * 8192 * 32 * 4096 * 2
    assert memory(responses).activations == memory(gold).activations + cache
    assert memory(GoldReward(responses, RewardModel(MODEL, **HALF))) == memory(gold)
    assert memory(GoldReward(responses, WorldGold())) is None
    assert memory(GoldLabels(SPLIT.unlabeled, WorldGold())) is None
    assert memory(LABELS) is None


@pytest.mark.parametrize(
    ("step", "room", "fit"), [(FULL, 80, Fit(shards=4)), (FULL, 16, None), (TEACHER, 80, Fit())]
)
def test_how_a_training_fits(step, room, fit):
    assert plan_fit(step, SHAPE, RESOURCES, 512, room * GIB) == fit
