"""Workers share the updates that one worker makes, also where the pairs do not divide evenly."""

from itertools import product

import pytest
import torch
from forked import run_two
from packed_trainings import KINDS, in_group, ours, some_pairs

from weakteach.models.resources import Resources

# Pairs and batch; the last update of an epoch has 3 pairs, or 1, of which one worker has none.
SIZES = [(19, 8), (17, 16)]
CASES = list(product((*KINDS, "weighted"), SIZES))


def trained(kind, size, folder):
    """What two epochs log, and the weights that they leave."""
    pairs, batch = some_pairs(size[0]), size[1]
    resources = Resources(train_tokens=80)
    trainer = ours(
        "dpo" if kind == "weighted" else kind, "llama", pairs, None, folder, batch, resources
    )
    if kind == "weighted":
        trainer.weigh(torch.linspace(0, 2, len(pairs)))
    trainer.args.optim, trainer.args.learning_rate = "sgd", 0.1
    trainer.args.num_train_epochs, trainer.args.logging_steps = 2, 1
    trainer.train()
    logged = [
        {
            name: value
            for name, value in row.items()
            if name in ("loss", "rewards/margins", "margin")
        }
        for row in trainer.state.log_history
        if "loss" in row
    ]
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return logged, {name: weight.clone() for name, weight in weights.items()}


def run_worker(rank, port, folder):
    with in_group(rank, port):
        for case, (kind, size) in enumerate(CASES):
            torch.save(trained(kind, size, folder / f"{case}-{rank}"), folder / f"{case}-{rank}.pt")


def test_two_workers_train_as_one_does(tmp_path):
    run_two(run_worker, tmp_path)
    for case, (kind, size) in enumerate(CASES):
        logged, weights = trained(kind, size, tmp_path / "one")
        start = ours("sft", "llama", some_pairs(), None, tmp_path, 16).model.state_dict()
        assert any(
            (weights[name] - start[name]).abs().max() > 1e-3 for name in start if name in weights
        )
        for rank in range(2):
            their_log, theirs = torch.load(tmp_path / f"{case}-{rank}.pt", weights_only=True)
            assert len(their_log) == len(logged) == 2 * -(-size[0] // size[1])
            for one, other in zip(logged, their_log, strict=True):
                assert other == pytest.approx(one, abs=1e-4), (kind, size)
            assert theirs.keys() == weights.keys()
            for name, weight in weights.items():
                assert (theirs[name] - weight).abs().max() < 1e-5, (kind, size, name)
