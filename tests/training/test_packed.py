"""Trainings that read each prompt once have the gradients of TRL's trainers as they come."""

from itertools import product

import pytest
import torch
from families import CONFIGS, LLAMA_LIKE
from forked import run_two
from packed_trainings import (
    KINDS,
    WHOLE,
    assert_equal,
    first_gradients,
    in_group,
    ours,
    some_pairs,
    stock,
)
from transformers import LlamaConfig

from weakteach.models.memory import Fit
from weakteach.models.pair_attention import LEAST_FLEX_WIDTH
from weakteach.models.resources import Resources
from weakteach.training.packed import in_parts
from weakteach.training.recipes import Lora

# Of every family one way that shares prompts and one that does not; the others are slow.
QUICK = {("sft", True), ("dpo", False)}


def ways(families, all_ways_of):
    """Of each family all ways to train it, quick for ``all_ways_of``."""
    return [
        pytest.param(
            family, kind, Lora(rank=4) if adapters else None,
            marks=[]
            if family in all_ways_of or (kind, adapters) in QUICK
            else [pytest.mark.slow],
            id=f"{family}-{kind}-{'adapters' if adapters else 'full'}",
        )
        for family, kind, adapters in product(families, KINDS, (False, True))
    ]  # fmt: skip


@pytest.mark.parametrize(("family", "kind", "lora"), ways(CONFIGS, {"opt", "llama"}))
def test_gradients_are_those_of_the_stock_trainer(family, kind, lora, tmp_path):
    """With as much of the update in the model at once as fits in 80 tokens, against TRL's
    accumulation over four batches."""
    pairs = some_pairs()
    theirs = first_gradients(stock(kind, family, pairs, lora, tmp_path, 16, accumulated=4))
    for tokens in (100_000, 80):
        trainer = ours(kind, family, pairs, lora, tmp_path, 16, Resources(train_tokens=tokens))
        assert trainer.packed == (family != "gpt-neo")
        assert_equal(first_gradients(trainer), theirs)


FAMILIES = ["opt", "llama", "qwen3", "smollm3", "gemma3"]


@pytest.mark.parametrize(("family", "kind", "lora"), ways(FAMILIES, {"llama"}))
def test_checkpointed_activations_change_no_gradient(family, kind, lora, tmp_path):
    """And layers are indeed run anew: each is called twice."""
    pairs, resources, found = some_pairs(), Resources(train_tokens=80), []
    for fit in (WHOLE, Fit(activation_checkpointing=True)):
        trainer, calls = ours(kind, family, pairs, lora, tmp_path, 16, resources, fit), []
        kind_of_layer = type(trainer.plain_model)._no_split_modules[0]
        layer = next(m for m in trainer.model.modules() if type(m).__name__ == kind_of_layer)
        attention = next(m for name, m in layer.named_children() if "attn" in name)
        attention.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        found.append((first_gradients(trainer), len(calls)))
    (kept, once), (checkpointed, twice) = found
    assert_equal(checkpointed, kept)
    assert (once > 1, twice) == (True, 2 * once)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[0, 1, 2, 3, 4], [5, 6]]),
        (3, [[0, 1], [2, 3, 4], [5, 6]]),
        (7, [[0], [1], [2], [3], [4], [5], [6]]),
        (9, [[0], [1], [2], [3], [4], [5], [6], [], []]),
    ],
)
def test_workers_of_shards_take_equally_many_parts(count, expected):
    assert in_parts([[0, 1, 2, 3, 4], [5, 6]], count) == expected


CASES = [(kind, lora) for kind in KINDS for lora in (None, Lora(rank=4))]


def run_worker(rank, port, folder):
    resources = Resources(train_tokens=80)
    with in_group(rank, port):
        for case, (kind, lora) in enumerate(CASES):
            trainer = ours(kind, "llama", some_pairs(), lora, folder / str(rank), 16, resources)
            torch.save(first_gradients(trainer), folder / f"gradients-{case}-{rank}")


def test_two_workers_have_the_gradients_of_one(tmp_path):
    """Though they cut their shares in different numbers of parts."""
    run_two(run_worker, tmp_path)
    for case, (kind, lora) in enumerate(CASES):
        theirs = first_gradients(stock(kind, "llama", some_pairs(), lora, tmp_path, 16))
        for rank in range(2):
            gradients, loss = torch.load(tmp_path / f"gradients-{case}-{rank}", weights_only=True)
            named = {name.removeprefix("module."): g for name, g in gradients.items()}
            assert_equal((named, loss), theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="flex attention trains on CUDA alone")
@pytest.mark.parametrize("kind", KINDS)
def test_flex_attention_has_the_gradients_of_rows(kind, tmp_path, monkeypatch):
    """With heads as wide as it asks for on CUDA."""
    wide = LlamaConfig(**{**LLAMA_LIKE, "hidden_size": 4 * LEAST_FLEX_WIDTH})
    assert wide.head_dim == LEAST_FLEX_WIDTH
    monkeypatch.setitem(CONFIGS, "wide", wide)
    found = [
        first_gradients(
            ours(kind, "wide", some_pairs(), None, tmp_path, 16, Resources(attention=attention))
        )
        for attention in ("sdpa", "flex")
    ]
    assert_equal(*found)
