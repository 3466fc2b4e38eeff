"""The dtype of a computation is a part of what it gives, from the command line to the record."""

import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import walk
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import RewardModel, WorldGold
from weakteach.evaluation.responses import Sampling
from weakteach.models.loading import load_causal, load_policy_and_reference, weights_of
from weakteach.models.logprobs import log_ratios, pair_logprobs
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tokens import PairTokens
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs
from weakteach.steps.evaluation import Generate, GoldReward, Similarity
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import EXPERIMENTS
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import EMBEDDED, PAPER
from weakteach.training.recipes import DpoRecipe, Lora, RewardRecipe, Schedule

DTYPES = ("float32", "bfloat16")
WITH_A_MODEL = (Sft, Dpo, RewardHead, WeakLabels, Generate, Similarity)
MODEL = find_model("opt-45k")
HELD_OUT = HeldOut(Pairs(WorldSource(60), (tokenizer_of(MODEL),)), test_pairs=30)


def steps_of(preset, **chosen):
    grid = make_grid(preset, preset.first, Choices(**chosen), resolve=False)
    arms = arms_of(experiment(grid) for experiment in EXPERIMENTS)
    return walk(target for arm in arms for target in arm.targets)


def exact(gold):
    return isinstance(gold, WorldGold)


@pytest.mark.parametrize(
    ("preset", "chosen", "dtype"),
    [
        (EMBEDDED, {}, "float32"),
        (EMBEDDED, {"dtype": "bfloat16"}, "bfloat16"),
        (PAPER, {}, "bfloat16"),
        (PAPER, {"dtype": "float32"}, "float32"),
    ],
)
def test_every_step_of_a_study_that_computes_with_a_model_has_its_dtype(preset, chosen, dtype):
    steps = steps_of(preset, **chosen)
    found = {type(step) for step in steps if hasattr(step, "dtype")}
    assert found == set(WITH_A_MODEL)
    assert {step.dtype for step in steps if hasattr(step, "dtype")} == {dtype}
    golds = {step.gold for step in steps if isinstance(step, GoldLabels | GoldReward)}
    assert {gold.dtype for gold in golds if isinstance(gold, RewardModel)} == {dtype}


def test_what_is_computed_without_a_model_is_the_same_in_every_dtype():
    plain, low = (steps_of(EMBEDDED, dtype=dtype) for dtype in (None, "bfloat16"))

    def of_no_model(steps):
        names = {"Pairs", "HeldOut", "Split", "HumanLabels", "Pretrained"}
        golds = [step for step in steps if isinstance(step, GoldLabels) and exact(step.gold)]
        return {*golds, *(step for step in steps if type(step).__name__ in names)}

    assert of_no_model(plain) == of_no_model(low)
    assert not {step for step in plain if isinstance(step, WITH_A_MODEL)} & set(low)


def test_a_dtype_is_used_recorded_and_told_apart(tmp_path, ray_here):
    store, resources = Store(tmp_path), Resources(batch_tokens=4096)
    recipe = RewardRecipe(Schedule(1e-3, batch=8, steps=10))
    heads = [RewardHead(MODEL, HumanLabels(HELD_OUT.train), recipe, 0, dtype=d) for d in DTYPES]
    golds = [GoldLabels(HELD_OUT.test, RewardModel(heads[0], dtype)) for dtype in DTYPES]
    records = [obtain(store, step, resources) for step in (*heads, *golds)]
    assert [record["parameters"].get("dtype") for record in records[:2]] == list(DTYPES)
    assert records[3]["parameters"]["gold"]["dtype"] == "bfloat16"
    assert all(record["execution"]["batch_tokens"] == 4096 for record in records)
    assert records[0]["facts"]["last_loss"] != records[1]["facts"]["last_loss"]
    rewards = [
        pq.read_table(f"{store.path(step)}/labels.parquet")["reward_1"].to_numpy() for step in golds
    ]
    assert np.allclose(*rewards, atol=0.1)
    assert np.abs(rewards[0] - rewards[1]).max() > 1e-4
    # Saved as it is read, a model takes half the room, and every number stays.
    half = replace(heads[1], saved="bfloat16")
    read = [GoldLabels(HELD_OUT.test, RewardModel(one, "bfloat16")) for one in (heads[1], half)]
    labels = [obtain(store, step, resources) and store.local(step) for step in read]
    assert pq.read_table(labels[0] / "labels.parquet") == pq.read_table(
        labels[1] / "labels.parquet"
    )
    whole, small = (load_file(store.local(one) / "model.safetensors") for one in (heads[1], half))
    assert {weight.dtype for weight in small.values()} == {torch.bfloat16}
    assert all(torch.equal(whole[name].bfloat16(), small[name]) for name in whole)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_dpo_in_bfloat16_begins_where_its_reference_is(tmp_path, lora):
    recipe = DpoRecipe(Schedule(0.0, batch=8, steps=10), beta=1.0, lora=lora)
    step = Dpo(MODEL, HumanLabels(HELD_OUT.train), recipe, 0, dtype="bfloat16")
    facts = obtain(Store(tmp_path), step, Resources())["facts"]
    assert facts["first_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_small_updates_of_adapters_in_bfloat16_are_kept(tmp_path):
    """Where a policy writes, as where it labels, and in a reward head that is saved in float32."""
    store, labels = Store(tmp_path), HumanLabels(HELD_OUT.train)
    small = {"schedule": Schedule(1e-5, batch=8, steps=5), "lora": Lora(rank=2)}
    start = Dpo(MODEL, labels, DpoRecipe(**small), 0, dtype="bfloat16")
    policy = Dpo(start, labels, DpoRecipe(**small), 1, dtype="bfloat16")
    head = RewardHead(MODEL, labels, RewardRecipe(**small), 0, dtype="bfloat16")
    for step in (start, policy, head):
        obtain(store, step, Resources())
    pairs = [PairTokens([7, 8, 9], list(range(20, 60)), list(range(60, 90)))]
    weights, below = weights_of(store, policy), weights_of(store, start)
    both = load_policy_and_reference(weights, below, "bfloat16")
    writer, _ = Sampling(store, policy, 0, 0.7, 20, "bfloat16", 512).load()
    wrote = pair_logprobs(writer, pairs, 4096) - pair_logprobs(
        load_causal(below, "bfloat16"), pairs, 4096
    )
    assert np.array_equal(wrote, log_ratios(both, pairs, 4096))
    saved = load_file(store.local(head) / "model.safetensors")
    adapted = [w for name, w in saved.items() if "proj.weight" in name]
    assert adapted
    assert not any(torch.equal(weight, weight.bfloat16().float()) for weight in adapted)


@pytest.mark.parametrize(
    ("preset", "chosen", "sft", "dpo"),
    [
        (PAPER, {}, "bfloat16", "float32"),  # DPO trains adapters
        (PAPER, {"dtype": "float32"}, "float32", "float32"),
        (PAPER, {"sft_lora": 8}, "float32", "float32"),
        (EMBEDDED, {"dtype": "bfloat16"}, "float32", "bfloat16"),  # DPO goes on from all weights
        (EMBEDDED, {}, "float32", "float32"),
    ],
)
def test_weights_are_saved_as_they_are_read(preset, chosen, sft, dpo):
    steps = steps_of(preset, **chosen)
    dtypes = [{step.saved for step in steps if isinstance(step, kind)} for kind in (Sft, Dpo)]
    assert dtypes == [{sft}, {dpo}]
    heads = [step for step in steps if isinstance(step, RewardHead)]
    assert heads
    assert all(head.saved == head.dtype for head in heads)
