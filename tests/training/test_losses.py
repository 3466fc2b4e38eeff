"""Losses of DPO's kind, and weights and soft labels that reach them."""

import math
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import torch
from forked import run_two
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_trainings import (
    assert_equal,
    first_gradients,
    in_group,
    ours,
    some_pairs,
    stock,
)

from weakteach.artifacts.errors import StepError
from weakteach.models.resources import Resources
from weakteach.training.dpo import MOST_NOISE, TRL_LOSSES, check_weights, label_smoothing
from weakteach.training.recipes import EXPECT_WRONG_LABELS, DpoRecipe, Lora
from weakteach.training.worker import label_column

FAMILY = "opt"
SMALL = Resources(train_tokens=80)


def gradients(folder, pairs=None, weights=None, resources=SMALL, loss="sigmoid", smoothing=None):
    pairs = some_pairs() if pairs is None else pairs
    trainer = ours("dpo", FAMILY, pairs, None, folder, len(pairs), resources)
    trainer.loss_types = [loss]
    trainer.smoothing = smoothing
    if weights is not None:
        trainer.weigh(torch.tensor(weights))
    return first_gradients(trainer)


def some_weights():
    return [0.05 + 0.9 * math.sin(number) ** 2 for number in range(len(some_pairs()))]


def test_weights_of_one_change_no_bit(tmp_path):
    plain, plain_loss = gradients(tmp_path)
    weighted, loss = gradients(tmp_path, weights=[1.0] * len(some_pairs()))
    assert loss == plain_loss
    assert all(torch.equal(weighted[name], gradient) for name, gradient in plain.items())


def test_a_pair_of_weight_zero_is_not_there(tmp_path):
    pairs = some_pairs()
    weights = [float(number % 3 != 0) for number in range(len(pairs))]
    kept = [pair for pair, weight in zip(pairs, weights, strict=True) if weight]
    assert_equal(gradients(tmp_path, pairs, weights), gradients(tmp_path, kept))


def test_weights_do_not_depend_on_how_an_update_is_cut(tmp_path):
    whole = gradients(tmp_path, weights=some_weights(), resources=Resources(train_tokens=100_000))
    assert_equal(gradients(tmp_path, weights=some_weights()), whole)


def test_a_weighted_gradient_is_the_weighted_mean_of_those_of_pairs(tmp_path):
    pairs, weights = some_pairs(), some_weights()
    found, loss = gradients(tmp_path, pairs, weights)
    alone = [gradients(tmp_path, [pair]) for pair in pairs]
    shares = torch.tensor(weights) / sum(weights)
    assert loss == pytest.approx(sum(s * one[1] for s, one in zip(shares, alone, strict=True)))
    for name, gradient in found.items():
        mean = sum(s * one[0][name] for s, one in zip(shares, alone, strict=True))
        assert (gradient - mean).abs().max() < 1e-5


def test_an_update_of_nothing_has_no_gradient(tmp_path):
    found, loss = gradients(tmp_path, weights=[0.0] * len(some_pairs()))
    assert loss == 0
    assert not any(gradient.any() for gradient in found.values())


def run_worker(rank, port, folder):
    with in_group(rank, port):
        trainer = ours("dpo", FAMILY, some_pairs(), Lora(rank=4), folder / str(rank), 16, SMALL)
        trainer.weigh(torch.tensor(some_weights()))
        torch.save(first_gradients(trainer), folder / f"gradients-{rank}")


def test_two_workers_weigh_as_one_does(tmp_path):
    run_two(run_worker, tmp_path)
    trainer = ours("dpo", FAMILY, some_pairs(), Lora(rank=4), tmp_path, 16, SMALL)
    trainer.weigh(torch.tensor(some_weights()))
    one, one_loss = first_gradients(trainer)
    losses = []
    for rank in range(2):
        found, loss = torch.load(tmp_path / f"gradients-{rank}", weights_only=True)
        named = {name.removeprefix("module."): gradient for name, gradient in found.items()}
        assert_equal((named, one_loss), (one, one_loss))
        losses.append(loss)
    assert losses[0] == pytest.approx(one_loss, abs=1e-5)


@pytest.mark.parametrize("loss", ["ipo", "hinge", "robust"])
def test_losses_are_those_of_the_stock_trainer(loss, tmp_path):
    pairs = some_pairs()
    theirs = stock("dpo", FAMILY, pairs, None, tmp_path, 16)
    theirs.loss_types, theirs.label_smoothing = [loss], 0.1
    smoothing = torch.full((len(pairs),), 0.1) if loss == "robust" else None
    found = gradients(tmp_path, pairs, loss=loss, smoothing=smoothing)
    assert_equal(found, first_gradients(theirs))


def smoothing_of(recipe, labels=None):
    job = SimpleNamespace(labels="", store=SimpleNamespace(filesystem=None))
    return label_smoothing(job, recipe, 3)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 0.49), st.floats(-20, 20))
def test_conservative_dpo_expects_the_other_choice_as_often_as_its_noise(noise, margin):
    (smoothing, *_) = smoothing_of(DpoRecipe(loss="cdpo", noise=noise)).double().tolist()
    label, other = math.log1p(math.exp(-margin)), math.log1p(math.exp(margin))
    trl = ((1 - smoothing) * label - smoothing * other) / (1 - 2 * smoothing)
    assert trl == pytest.approx((1 - noise) * label + noise * other, rel=1e-4, abs=1e-4)


def test_the_gradient_of_a_loss_is_its_slope(tmp_path):
    """By finite differences, in the weight that moves the loss most."""
    pairs, smoothing = some_pairs(), torch.linspace(-3, 0, len(some_pairs()))
    options = {"loss": "robust", "smoothing": smoothing, "weights": some_weights()}
    found, _ = gradients(tmp_path, pairs, **options)
    name, gradient = max(found.items(), key=lambda item: float(item[1].abs().max()))
    place = int(gradient.abs().argmax())

    def loss_at(step):
        trainer = ours("dpo", FAMILY, pairs, None, tmp_path, len(pairs), SMALL)
        trainer.loss_types, trainer.smoothing = ["robust"], smoothing
        trainer.weigh(torch.tensor(some_weights()))
        return first_gradients(trainer, moved=(name, place, step))[1]

    step = 1e-3
    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert slope == pytest.approx(float(gradient.flatten()[place]), rel=0.02)


@pytest.fixture
def job(tmp_path):
    """A job whose labels have the given columns."""

    def with_columns(**columns):
        labels = tmp_path / "labels.parquet"
        pq.write_table(
            pa.table({"pair_id": ["b", "a", "c"], "choice": [1, 2, 1], **columns}), labels
        )
        store = SimpleNamespace(filesystem=pa.fs.LocalFileSystem())
        return SimpleNamespace(labels=str(labels), store=store)

    return with_columns


def weights_of(job):
    return check_weights(label_column(job, "weight", "A weighted loss"))


def test_weights_are_finite():
    for bad in (math.inf, math.nan, -1.0):
        with pytest.raises(StepError, match="none below"):
            check_weights(torch.tensor([1.0, bad]))


def test_weights_come_in_the_order_of_the_pairs(job):
    assert weights_of(job(weight=[0.5, 0.25, 1.0])).tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "needs labels with the column weight"),
        ({"weight": [0.5, math.nan, 1.0]}, "The weight of pair a is nan"),
        ({"weight": [0.5, -1.0, 1.0]}, "none below"),
        ({"weight": [0.0, 0.0, 0.0]}, "give some above 0"),
        ({"weight": [0.5, math.inf, 1.0]}, "The weight of pair a is inf"),
    ],
)
def test_weights_that_are_none_end_the_training(job, columns, message):
    with pytest.raises(StepError, match=message):
        weights_of(job(**columns))


def test_soft_labels_take_each_pairs_own_noise(job):
    recipe = DpoRecipe(loss="cdpo", soft=True)
    found = label_smoothing(job(probability=[0.9, 1.0, 0.5]), recipe, 3)
    noise = torch.tensor([0.0, 0.1, MOST_NOISE])
    assert found.tolist() == pytest.approx((-noise / (1 - 2 * noise)).tolist(), rel=1e-3)
    with pytest.raises(StepError, match="needs labels with the column probability"):
        label_smoothing(job(), recipe, 3)
    with pytest.raises(StepError, match="not from one half to 1"):
        label_smoothing(job(probability=[0.9, 0.2, 0.5]), recipe, 3)


@pytest.mark.parametrize(
    "fields", [{"noise": 0.1}, {"loss": "rdpo", "noise": 0.5}, {"loss": "ipo", "soft": True},
               {"loss": "cdpo", "noise": 0.1, "soft": True}],
)  # fmt: skip
def test_a_noise_that_no_loss_reads_is_refused(fields):
    with pytest.raises(ValueError, match=r"noise|wrong labels"):
        DpoRecipe(**fields)


def test_a_loss_that_would_have_the_least_sure_labels_count_most_is_refused():
    with pytest.raises(ValueError, match="Soft labels need the loss cdpo"):
        DpoRecipe(loss="rdpo", soft=True)


def test_every_loss_is_one_of_trls():
    assert set(EXPECT_WRONG_LABELS) < set(TRL_LOSSES)
    assert {TRL_LOSSES[loss] for loss in EXPECT_WRONG_LABELS} == {"robust"}
