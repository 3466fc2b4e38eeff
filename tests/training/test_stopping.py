"""Training that ends when held-out pairs gain no more."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from forked import run_two
from packed_trainings import in_group
from transformers import TrainerControl, TrainerState, TrainingArguments

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs, Split, labels_file
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import Dpo
from weakteach.training.dpo import HeldOutLoss, dpo_trainer
from weakteach.training.recipes import DpoRecipe, Lora, Schedule
from weakteach.training.stopping import StopWhenWorse, best_updates, held_out_losses
from weakteach.training.worker import TrainingJob

MODEL = find_model("opt-45k")
SPLIT = Split(HeldOut(Pairs(WorldSource(96), (tokenizer_of(MODEL),)), 16), Fraction(2, 5), seed=0)
TRAIN, UNTIL = HumanLabels(SPLIT.unlabeled), HumanLabels(SPLIT.labeled)
EPOCH = 3  # updates: 48 pairs in batches of 16
LONG = DpoRecipe(Schedule(2e-3, batch=16, epochs=10), beta=0.2, lora=None)
STOPPED = Dpo(MODEL, TRAIN, LONG, seed=0, until=UNTIL)
RESOURCES = Resources(checkpoint_steps=4)


def updates_made(losses, state, until=30):
    """By a callback that looks every third update and finds these losses."""
    found = iter(losses)
    callback = StopWhenWorse(lambda: next(found), every=3)
    control = TrainerControl()
    while state.global_step < until and not control.should_training_stop:
        state.global_step += 1
        callback.on_step_end(TrainingArguments(use_cpu=True), state, control)
    return state.global_step


@pytest.mark.parametrize(
    ("losses", "made", "best"),
    [
        ([0.6, 0.5, 0.55], 9, 6),
        ([0.6, 0.6], 6, 3),  # no gain is none
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05], 30, 30),
        ([0.6, math.nextafter(0.6, 0), 1.0], 9, 6),
    ],
)
def test_it_ends_at_the_first_loss_that_is_not_below_the_one_before(losses, made, best):
    state = TrainerState()
    assert updates_made(losses, state) == made
    assert best_updates(held_out_losses(state.log_history)) == best


def test_a_training_that_goes_on_remembers_what_it_found(tmp_path):
    state = TrainerState()
    updates_made([0.6, 0.5], state, until=7)
    state.save_to_json(tmp_path / "state.json")
    again = TrainerState.load_from_json(str(tmp_path / "state.json"))
    assert updates_made([0.5], again) == 9
    assert best_updates(held_out_losses(again.log_history)) == 6


def losses_of(store, step):
    lines = (store.local(step) / "metrics.jsonl").read_text().splitlines()
    return held_out_losses(map(json.loads, lines))


def weights(store, step):
    return (store.local(step) / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """With such a training."""
    store = Store(tmp_path_factory.mktemp("whole"))
    obtain(store, STOPPED, RESOURCES)
    return store


def test_it_stops_by_held_out_pairs_and_another_makes_as_many_updates(store, tmp_path, monkeypatch):
    facts = store.record(STOPPED)["facts"]
    losses = losses_of(store, STOPPED)
    assert list(losses) == list(range(EPOCH, facts["updates"] + 1, EPOCH))
    *falling, last = losses.values()
    assert falling == sorted(falling, reverse=True)
    assert last >= falling[-1]
    assert facts["updates"] < 10 * EPOCH
    assert facts["best_updates"] == facts["updates"] - EPOCH
    after = Dpo(MODEL, TRAIN, replace(LONG, schedule=Schedule(2e-3, batch=16)), 0, STOPPED)
    assert obtain(store, after, RESOURCES)["facts"]["updates"] == facts["best_updates"]

    # One that is interrupted at its second look goes on to the same bytes.
    other, looks, look = Store(tmp_path / "again"), [], HeldOutLoss.of

    def interrupted(self, model):
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt
        return look(self, model)

    monkeypatch.setattr(HeldOutLoss, "of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        obtain(other, STOPPED, RESOURCES)
    obtain(other, STOPPED, RESOURCES)
    assert len(looks) == len(losses) + 1
    assert losses_of(other, STOPPED) == losses
    assert weights(other, STOPPED) == weights(store, STOPPED)


def stop_in_group(rank, port, folder):
    """One of two workers that train as STOPPED does, on the labels of a store in the folder."""
    with in_group(rank, port):
        store = Store(folder / "store")
        files = [(of.part.file(store), labels_file(store, of)) for of in (TRAIN, UNTIL)]
        job = TrainingJob(
            store=store, start=MODEL, pairs=files[0][0], labels=files[0][1], recipe=LONG, seed=0,
            dtype="float32", resources=Resources(), stage="", run_folder=str(folder / str(rank)),
            held_out=files[1],
        )  # fmt: skip
        trainer = dpo_trainer(job)
        trainer.train()
        losses = held_out_losses(trainer.state.log_history)
        (folder / f"{rank}.json").write_text(json.dumps(list(losses.items())))


def test_two_workers_stop_where_one_does(store, tmp_path):
    (tmp_path / "store").symlink_to(store.root)
    run_two(stop_in_group, tmp_path)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    updates, losses = zip(*losses_of(store, STOPPED).items(), strict=True)
    assert [number for number, _ in one] == list(updates)
    assert [loss for _, loss in one] == pytest.approx(list(losses), rel=1e-3)


def test_the_loss_is_that_of_dpo_and_sees_adapters(tmp_path, monkeypatch):
    seen, look = [], HeldOutLoss.of

    def noted(self, model):
        now = look(self, model)
        seen.append((now, model.training))
        nothing = replace(self, reference=self.reference + np.array([1.0, -1.0]))
        # Every margin smaller by beta * 2.
        assert look(nothing, model) > now
        return now

    monkeypatch.setattr(HeldOutLoss, "of", noted)
    recipe = replace(LONG, lora=Lora(rank=4), schedule=Schedule(0.0, batch=16, epochs=2))
    step = Dpo(MODEL, TRAIN, recipe, seed=0, until=UNTIL)
    store = Store(tmp_path)
    obtain(store, step, Resources())
    # Without an update the policy is the reference, whose loss is that of a coin.
    assert seen == [(pytest.approx(math.log(2)), True)] * 2
    obtain(store, replace(step, recipe=replace(recipe, schedule=LONG.schedule)), Resources())
    assert seen[2][0] != pytest.approx(math.log(2), abs=1e-4)


def test_a_training_that_looked_at_nothing_tells_no_number_of_updates(tmp_path):
    once = replace(LONG, schedule=Schedule(1e-3, batch=16, steps=1))
    plain = Dpo(MODEL, TRAIN, once, seed=0)
    with pytest.raises(StepError, match="looked at no held-out pairs"):
        obtain(Store(tmp_path), Dpo(MODEL, TRAIN, LONG, seed=0, as_long_as=plain), Resources())
