"""What a study writes, and how little of it lies there at a time if SFT models are dropped."""

from dataclasses import replace
from fractions import Fraction

from weakteach.artifacts.step import walk
from weakteach.evaluation.gold import WorldGold
from weakteach.models.size import shape_for
from weakteach.models.spec import find_model
from weakteach.preferences.sources import WorldSource
from weakteach.run.disk import Disk, bytes_on_host, disk_of, most_at_once
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import RewardHead, dpo_from, sft_before
from weakteach.study.measures import Arm, Measure, Setting
from weakteach.training.recipes import DpoRecipe, Lora, RewardRecipe, SftRecipe

MODEL = find_model("opt-45k")
SHAPE = shape_for(MODEL)
HELD_OUT = HeldOut(Pairs(WorldSource(64), ()), 16)
LABELS = HumanLabels(Split(HELD_OUT, Fraction(1, 2), 0).labeled)
ADAPTERS = DpoRecipe(lora=Lora(8))
SETTING = Setting("world", "", "DPO", "opt-45k", "1/2", "0.1", "with SFT", "usual")


def sft(seed, dtype="bfloat16", then=ADAPTERS):
    return sft_before(then, MODEL, LABELS, SftRecipe(), seed, dtype)


def dpo(start, seed=0, recipe=ADAPTERS):
    return dpo_from(start, LABELS, recipe, seed, start.dtype)


def arm(*policies):
    targets = [GoldReward(Generate(one, HELD_OUT.test, 0), WorldGold()) for one in policies]
    measures = (Measure(SETTING, 0, "reward", "human", "", "", "", one) for one in targets)
    return Arm(SETTING, 0, tuple(measures))


def test_models_count_in_the_dtype_that_they_are_saved_in_and_checkpoints_in_float32():
    whole = DpoRecipe(lora=None)
    head = RewardHead(MODEL, LABELS, RewardRecipe(lora=Lora(8)), 0, saved="bfloat16")
    steps = [LABELS, sft(0), dpo(sft(0)), sft(0, then=whole), dpo(sft(0), recipe=whole), head]
    found = disk_of(steps, [], 1)
    parameters, adapters = SHAPE.parameters, SHAPE.adapter_parameters(8)
    assert found.models == (2 + 4 + 2 + 2) * parameters + 4 * adapters
    assert found.bulk == (2 + 4) * parameters
    assert found.checkpoints == 2 * 12 * parameters
    assert disk_of([LABELS], [], 1) == Disk(0, 0, 0, 0)
    unknown = replace(sft(0), start=find_model("some/model", resolve=False))
    assert disk_of([unknown], [], 1) == Disk(0, 0, 0, 0)


def test_a_model_is_there_from_its_first_arm_until_its_last_reader_is_done():
    first, shared, last = sft(0), sft(1), sft(2)
    arms = [
        arm(dpo(first), dpo(shared)),
        arm(dpo(first), dpo(last)),  # what reads the first was computed in the arm before
        arm(dpo(shared, seed=1), dpo(last)),
    ]
    sizes = {first.fingerprint: 1.0, shared.fingerprint: 10.0, last.fingerprint: 100.0}
    assert most_at_once(arms, sizes, 1) == 110.0
    assert most_at_once(arms, sizes, 2) == 111.0
    assert most_at_once([], sizes, 1) == 0.0
    missing = walk(target for one in arms for target in one.targets)
    found = disk_of(missing, arms, 1)
    assert (found.bulk, found.bulk_at_once) == (6 * SHAPE.parameters, 4 * SHAPE.parameters)
    assert found.needed(drop=False) - found.needed(drop=True) == 2 * SHAPE.parameters
    assert str(Disk(5e9, 4e9, 1e9, 1e9)) == (
        "About 6.0 GB of models are written to the storage, 4.0 GB of them by SFT; of these 1.0 GB "
        "at a time with --drop-sft."
    )
    assert str(Disk(5e9, 0, 0, 1e9)) == "About 6.0 GB of models are written to the storage."


def test_a_host_keeps_models_of_the_hub_checkpoints_and_a_model_twice():
    hub = find_model("facebook/opt-1.3b", resolve=False)
    large = shape_for(hub).parameters
    full, adapters = (replace(step, start=hub) for step in (sft(0), dpo(sft(0))))
    assert bytes_on_host([LABELS, full]) == 2 * large + 24 * large + 2 * 2 * large
    few = shape_for(hub).adapter_parameters(8)
    assert bytes_on_host([adapters]) == 2 * large + 24 * few + 2 * 4 * few
    # One that comes with the package is not fetched.
    assert bytes_on_host([sft(0)]) == (24 + 2 * 2) * SHAPE.parameters
    assert bytes_on_host([LABELS]) == 0
