"""Trainings that read each prompt once have the gradients of TRL's trainers as they come."""

import socket

import pytest
import torch
import torch.multiprocessing as mp
from families import CONFIGS
from packed_trainings import (
    KINDS,
    assert_equal,
    first_gradients,
    in_group,
    ours,
    some_pairs,
    stock,
)

from weakteach.models.resources import Resources
from weakteach.training.recipes import Lora


@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "adapters"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_are_those_of_the_stock_trainer(family, kind, lora, tmp_path):
    """With as much of the update in the model at once as fits in 80 tokens, against TRL's
    accumulation over four batches."""
    pairs = some_pairs()
    theirs = first_gradients(stock(kind, family, pairs, lora, tmp_path, 16, accumulated=4))
    for tokens in (100_000, 80):
        trainer = ours(kind, family, pairs, lora, tmp_path, 16, Resources(train_tokens=tokens))
        assert_equal(first_gradients(trainer), theirs)


CASES = [(kind, lora) for kind in KINDS for lora in (None, Lora(rank=4))]


def run_worker(rank, port, folder):
    resources = Resources(train_tokens=80)
    with in_group(rank, port):
        for case, (kind, lora) in enumerate(CASES):
            trainer = ours(kind, "llama", some_pairs(), lora, folder / str(rank), 16, resources)
            torch.save(first_gradients(trainer), folder / f"gradients-{case}-{rank}")


def test_two_workers_have_the_gradients_of_one(tmp_path):
    """Though they cut their shares in different numbers of parts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(run_worker, (port, tmp_path), nprocs=2)
    for case, (kind, lora) in enumerate(CASES):
        theirs = first_gradients(stock(kind, "llama", some_pairs(), lora, tmp_path, 16))
        for rank in range(2):
            gradients, loss = torch.load(tmp_path / f"gradients-{case}-{rank}", weights_only=True)
            named = {name.removeprefix("module."): g for name, g in gradients.items()}
            assert_equal((named, loss), theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="flex attention trains on CUDA alone")
@pytest.mark.parametrize("kind", KINDS)
def test_flex_attention_has_the_gradients_of_rows(kind, tmp_path):
    found = [
        first_gradients(
            ours(kind, "llama", some_pairs(), None, tmp_path, 16, Resources(attention=attention))
        )
        for attention in ("sdpa", "flex")
    ]
    assert_equal(*found)
