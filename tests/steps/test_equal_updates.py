"""Training as long as on other labels: how many updates that is, and what it does to a step."""

from fractions import Fraction

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Trainer, TrainingArguments

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.training.recipes import DpoRecipe, Schedule, SftRecipe

MODEL = find_model("opt-45k")
SFT = SftRecipe(Schedule(1e-3, batch=32))
DPO = DpoRecipe(Schedule(1e-3, batch=32, epochs=1.5), beta=0.2, lora=None)


@pytest.fixture(scope="module")
def split():
    pairs = Pairs(WorldSource(160), (tokenizer_of(MODEL),))
    return Split(HeldOut(pairs, test_pairs=20), Fraction(1, 8), seed=0)


@pytest.fixture(scope="module")
def plain_trainer(tmp_path_factory):
    model = load_causal(weights_of(None, MODEL))
    return Trainer(model, TrainingArguments(tmp_path_factory.mktemp("run"), use_cpu=True))


@settings(deadline=None)
@given(
    st.integers(1, 2000),
    st.integers(1, 64),
    st.sampled_from([0.5, 1.0, 1.5, 3.0]),
    st.sampled_from([None, 7]),
    st.data(),
)
def test_updates_are_those_that_a_trainer_makes(plain_trainer, pairs, batch, epochs, steps, data):
    at_once = data.draw(st.sampled_from([n for n in range(1, batch + 1) if batch % n == 0]))
    trainer = plain_trainer
    trainer._train_batch_size = trainer.args.per_device_train_batch_size = at_once
    trainer.args.gradient_accumulation_steps = batch // at_once
    trainer.args.num_train_epochs, trainer.args.max_steps = epochs, steps or -1
    trainer.train_dataset = Dataset.from_dict({"input_ids": [[2]] * pairs})
    made = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]
    assert Schedule(1e-3, batch=batch, epochs=epochs, steps=steps).updates(pairs) == made


@pytest.mark.parametrize("longer", [True, False], ids=["more labels", "fewer labels"])
@pytest.mark.parametrize(("kind", "recipe"), [(Sft, SFT), (Dpo, DPO)])
def test_as_many_updates_as_on_the_other_labels(tmp_path_factory, split, kind, recipe, longer):
    store = Store(tmp_path_factory.getbasetemp() / "equal")
    few, many = HumanLabels(split.labeled), HumanLabels(split.unlabeled)
    own, other = (few, many) if longer else (many, few)
    step = kind(MODEL, own, recipe, seed=0, as_long_as=other)
    equal, plain = (obtain(store, s, Resources()) for s in (step, kind(MODEL, other, recipe, 0)))
    assert equal["facts"]["updates"] == plain["facts"]["updates"]
    assert equal["facts"]["pairs"] == store.record(own)["facts"]["rows"]
    assert store.record(few)["facts"]["rows"] < store.record(many)["facts"]["rows"]


def test_the_other_labels_are_part_of_what_a_step_is(split):
    few, many = HumanLabels(split.labeled), HumanLabels(split.unlabeled)
    plain, long = Sft(MODEL, few, SFT, 0), Sft(MODEL, few, SFT, 0, as_long_as=many)
    assert plain.fingerprint != long.fingerprint
    assert "as_long_as" not in plain.identity  # so that earlier artifacts stay valid
    assert long.inputs == (few, many)
