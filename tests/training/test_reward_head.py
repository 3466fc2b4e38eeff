"""Reward heads: their loss, their artifact, their labels, and gold models made of them."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from families import CONFIGS, random_model

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import RewardModel
from weakteach.labeling.annotators import RewardHeadReward
from weakteach.models.loading import (
    context_length,
    load_causal,
    load_reward_model,
    load_with_head,
    weights_of,
)
from weakteach.models.resources import Resources
from weakteach.models.reward_forms import encode
from weakteach.models.scoring import score_in_form
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.pair import DataError, preference_set
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs, read_labels
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.training import RewardHead, Sft
from weakteach.training.recipes import Lora, RewardRecipe, Schedule, SftRecipe

HERE = Resources()
TINY = find_model("opt-45k")


def labels_of(pairs):
    return HumanLabels(Pairs(WorldSource(pairs), (tokenizer_of(TINY),)).all)


def reward_head(labels, start=TINY, lora=None, seed=0, **schedule):
    options = {"learning_rate": 1.2e-3, "batch": 16, **schedule}
    return RewardHead(start, labels, RewardRecipe(Schedule(**options), lora), seed)


def preferences(store, labels):
    return preference_set(labels.part.read(store), read_labels(store, labels))


def rewards_of(model, table, column):
    prompts, responses = table["prompt"].to_pylist(), table[column].to_pylist()
    tokenizer = load_tokenizer(TINY.location)
    encoded, _ = encode("text", tokenizer, prompts, responses, context_length(model))
    return score_in_form("text", model, tokenizer, encoded, 4096)


def bradley_terry_loss(model, table):
    margin = rewards_of(model, table, "chosen") - rewards_of(model, table, "rejected")
    return np.log1p(np.exp(-margin)).mean()


def weights_bytes(store, step):
    return (store.local(step) / "model.safetensors").read_bytes()


def test_training_lowers_the_loss_and_the_same_step_gives_the_same_bytes(tmp_path):
    step = reward_head(labels_of(128), epochs=4)
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    record = obtain(first, step, HERE)
    assert (record["facts"]["pairs"], record["facts"]["updates"]) == (128, 32)
    table = preferences(first, step.labels)
    before = bradley_terry_loss(load_with_head(weights_of(first, TINY), "float32", 0), table)
    after = bradley_terry_loss(load_reward_model(first.local(step)), table)
    assert after < before - 0.05
    obtain(second, step, HERE)
    assert weights_bytes(first, step) == weights_bytes(second, step)


def test_the_loss_is_that_of_bradley_and_terry(tmp_path):
    """A rate of 0 leaves the head as it was drawn, so each logged loss is that of all pairs."""
    store, labels = Store(tmp_path), labels_of(24)
    step = reward_head(labels, learning_rate=0.0, batch=24, steps=10)
    logged = obtain(store, step, HERE)["facts"]["last_loss"]
    untrained = load_with_head(weights_of(store, TINY), "float32", seed=0)
    assert logged == pytest.approx(
        bradley_terry_loss(untrained, preferences(store, labels)), abs=1e-5
    )
    other = load_with_head(weights_of(store, TINY), "float32", seed=1)
    assert not torch.equal(untrained.score.weight, other.score.weight)
    assert torch.equal(untrained.score.weight, load_reward_model(store.local(step)).score.weight)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("pad", ["own", "eos"])
def test_every_family_gets_a_head_that_reads_the_same_whatever_the_padding(
    tmp_path, tiny, family, pad
):
    random_model(family).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tiny)
    if pad == "eos":
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    weights = weights_of(None, find_model(str(tmp_path)))
    causal, head = load_causal(weights), load_with_head(weights, "float32", seed=0)
    for name, weight in causal.base_model.state_dict().items():
        assert torch.equal(weight, head.base_model.state_dict()[name])
    texts = ["yes", "no , that is not a thing to do", "one two three"]
    encoded, _ = encode("text", tokenizer, ["well :"] * 3, texts, context_length(head))
    together, alone = (score_in_form("text", head, tokenizer, encoded, size) for size in (4096, 1))
    assert np.abs(together - alone).max() < 1e-5
    assert together.std() > 1e-4


@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "adapters"])
def test_the_artifact_is_a_whole_reward_model_with_a_trained_head(tmp_path, tiny, lora):
    random_model("llama").save_pretrained(tmp_path / "llama")
    load_tokenizer(tiny).save_pretrained(tmp_path / "llama")
    store, start = Store(tmp_path / "store"), find_model(str(tmp_path / "llama"))
    step = reward_head(labels_of(32), start=start, lora=lora)
    obtain(store, step, HERE)
    names = {file.name for file in store.local(step).iterdir()}
    assert "model.safetensors" in names
    assert not any("adapter" in name for name in names)
    before = load_with_head(weights_of(store, start), "float32", seed=0).state_dict()
    after = load_reward_model(store.local(step)).state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert "score.weight" in changed
    assert any(name.startswith("model.layers") for name in changed)
    assert ("model.embed_tokens.weight" in changed) == (lora is None)


def test_a_head_on_adapters_has_them_merged_below_it(tmp_path):
    store = Store(tmp_path)
    sft = Sft(TINY, labels_of(32), SftRecipe(Schedule(1e-2, batch=16), Lora(rank=4)), seed=0)
    obtain(store, sft, HERE)
    head = load_with_head(weights_of(store, sft), "float32", seed=0)
    merged = load_causal(weights_of(store, sft)).base_model.state_dict()
    base = load_causal(weights_of(store, TINY)).base_model.state_dict()
    for name, weight in head.base_model.state_dict().items():
        assert torch.equal(weight, merged[name])
    assert any(not torch.equal(merged[name], base[name]) for name in base)


def test_pairs_for_a_gold_model_are_set_aside_from_all_others(tmp_path):
    pairs, store = Pairs(WorldSource(200), (tokenizer_of(TINY),)), Store(tmp_path)
    plain, held_out = HeldOut(pairs, 40), HeldOut(pairs, 40, gold_pairs=50)
    for step in (plain, held_out):
        obtain(store, step)
    parts = [held_out.test, held_out.set_aside, held_out.train]
    prompts = [set(part.read(store)["prompt"].to_pylist()) for part in parts]
    assert not prompts[0] & prompts[1]
    assert not (prompts[0] | prompts[1]) & prompts[2]
    assert sum(len(part.read(store)) for part in parts) == len(pairs.all.read(store))
    assert len(held_out.set_aside.read(store)) >= 50
    assert held_out.test.read(store).equals(plain.test.read(store))
    assert "gold_pairs" not in plain.identity  # so that earlier artifacts stay valid
    with pytest.raises(DataError, match="give gold_pairs"):
        _ = plain.set_aside


def test_a_reward_head_labels_as_a_teacher_and_as_a_gold_model(tmp_path, ray_here):
    held_out = HeldOut(Pairs(WorldSource(160), (tokenizer_of(TINY),)), 30, gold_pairs=60)
    head, store = reward_head(HumanLabels(held_out.set_aside)), Store(tmp_path)
    weak, gold = WeakLabels(head, held_out.test), GoldLabels(held_out.test, RewardModel(head))
    outcomes = obtain_each(store, [weak, gold], HERE)
    assert all(isinstance(outcome, dict) for outcome in outcomes.values()), outcomes
    labels, model = read_labels(store, weak), load_reward_model(store.local(head))
    assert labels.schema.metadata[b"annotator"] == head.fingerprint.encode()
    assert labels.equals(read_labels(store, gold))
    pairs = held_out.test.read(store)
    assert labels["pair_id"].equals(pairs["pair_id"])
    for side in (1, 2):
        plain = rewards_of(model, pairs, f"response_{side}")
        assert np.abs(labels[f"reward_{side}"].to_numpy() - plain).max() < 1e-5
    assert str(gold.gold) == "reward model trained from opt-45k"


def test_a_pair_that_the_head_cannot_read_to_its_end_is_refused_by_name():
    """What it can just read is labeled; one token more, and the reward would be of another text."""
    tokenizer = load_tokenizer(TINY.location)
    head = load_with_head(weights_of(None, TINY), "float32", 0)
    work, room = RewardHeadReward(None, TINY, "float32", 4096), context_length(head) - 3

    def labels(more):
        texts = {"prompt": [[1, 2, 3]] * 2, "response_1": [[4, 5]] * 2}
        texts["response_2"] = [[6] * 8, [7] * (room + more)]
        rows = pa.table({"pair_id": ["short", "long"], **texts})
        return work.process((head, tokenizer), rows)

    assert labels(0)["pair_id"].to_pylist() == ["short", "long"]
    with pytest.raises(StepError, match=rf"Pair long has {room + 4} tokens, .* at most {room + 3}"):
        labels(1)
