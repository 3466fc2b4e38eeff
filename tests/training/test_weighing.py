"""Weights and soft labels on their way from labels, or from a user's data set, to the gradient: as
a plain computation of the loss has it, pair by pair and without padding."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from packed_trainings import assert_equal, first_gradients
from torch.nn.functional import logsigmoid
from trl.trainer.dpo_config import DPOConfig

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tiny.family import base_folder
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs
from weakteach.steps.labels import HumanLabels
from weakteach.training.dpo import dpo_trainer
from weakteach.training.recipes import DpoRecipe, Schedule
from weakteach.training.weighted import weighted_dpo_trainer
from weakteach.training.worker import TrainingJob

MODEL = find_model("opt-45k")
BETA = 0.5
# In the order of pair ids.
WEIGHTS = torch.tensor([1.0, 0.1, 0.0, 0.6, 0.3, 1.0, 0.05, 0.8])
PROBABILITIES = torch.tensor([0.55, 0.99, 0.7, 0.6, 0.9, 0.8, 1.0, 0.52])
ALIKE, SURE = torch.ones(8), torch.ones(8)


def start():
    return load_causal(weights_of(None, MODEL))


def logprobs(model, pairs):
    """Of both responses [pairs, 2]."""

    def of_one(prompt, response):
        ids = torch.tensor([prompt + response])
        scores = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return scores.gather(-1, ids[0, len(prompt) :, None]).sum()

    sides = [[of_one(p.prompt, side) for side in (p.response_1, p.response_2)] for p in pairs]
    return torch.stack([torch.stack(pair) for pair in sides])


def plainly(trainer, weights, probabilities):
    """Gradients and loss at the weights that the trainer's model has now."""
    model = start()
    model.load_state_dict(trainer.model.state_dict())
    with torch.no_grad():
        reference = logprobs(start(), trainer.pairs)
    gained = logprobs(model, trainer.pairs) - reference
    margin = BETA * (gained[:, 0] - gained[:, 1])
    p = probabilities
    losses = -p * logsigmoid(margin) - (1 - p) * logsigmoid(-margin)
    loss = (weights * losses).sum() / weights.sum()
    loss.backward()
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return found, loss.item()


def assert_weighed(trainer, weights, probabilities):
    found = first_gradients(trainer)
    assert_equal(found, plainly(trainer, weights, probabilities))
    with pytest.raises(AssertionError):  # they are such as make a difference
        assert_equal(found, plainly(trainer, ALIKE, SURE))


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A store with 8 labeled pairs, their part, and labels with weights and probabilities."""
    folder = tmp_path_factory.mktemp("labeled")
    store, part = Store(folder / "store"), Pairs(WorldSource(8), (tokenizer_of(MODEL),)).all
    obtain(store, HumanLabels(part))
    table = part.human_choices(store)
    assert len(table) == len(WEIGHTS)
    for name, values in (("weight", WEIGHTS), ("probability", PROBABILITIES)):
        table = table.append_column(name, pa.array(values.tolist()))
    pq.write_table(table, folder / "labels.parquet")
    return store, part, str(folder / "labels.parquet")


@pytest.mark.parametrize(
    ("changes", "weights", "probabilities"),
    [
        ({"weighted": True}, WEIGHTS, SURE),
        ({"loss": "cdpo", "soft": True}, ALIKE, PROBABILITIES),
        ({"loss": "cdpo", "soft": True, "weighted": True}, WEIGHTS, PROBABILITIES),
    ],
    ids=["weighted", "soft", "both"],
)
def test_the_columns_of_labels_reach_the_gradient(
    labeled, tmp_path, changes, weights, probabilities
):
    store, part, labels = labeled
    job = TrainingJob(
        store=store,
        start=MODEL,
        pairs=part.file(store),
        labels=labels,
        recipe=DpoRecipe(Schedule(0.0, batch=8), BETA, lora=None, **changes),
        seed=0,
        dtype="float32",
        resources=Resources(train_tokens=200),
        stage="",
        run_folder=str(tmp_path),
    )
    assert_weighed(dpo_trainer(job), weights, probabilities)


def test_the_weights_of_a_data_set_reach_the_gradient(labeled, tmp_path):
    store, part, _ = labeled
    rows = part.read(store).rename_columns({"response_1": "chosen", "response_2": "rejected"})
    rows = rows.select(["prompt", "chosen", "rejected"]).to_pydict()
    how = DPOConfig(
        str(tmp_path), use_cpu=True, bf16=False, beta=BETA, learning_rate=0.0,
        per_device_train_batch_size=8, report_to="none", save_strategy="no",
        activation_checkpointing=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = weighted_dpo_trainer(
        start(),
        load_tokenizer(base_folder("opt-45k")),
        Dataset.from_dict({**rows, "weight": WEIGHTS.tolist()}),
        how,
        resources=Resources(train_tokens=200),
    )
    assert_weighed(trainer, WEIGHTS, SURE)
