import numpy as np
import pytest
import torch
from families import random_model
from peft import LoraConfig, get_peft_model

from weakteach.models.loading import Weights, load_causal, load_policy_and_reference
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.tokens import PairTokens

PAIRS = [PairTokens([5, 6, 7, 8], [9, 10, 2], [11, 2]), PairTokens([5], [6, 2], [6, 7, 2])]


def adapter(folder, model, seed):
    """A LoRA adapter that changes the model, in the folder."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, one adapter on it, and a second one on top of that."""
    root = tmp_path_factory.mktemp("weights")
    random_model("llama").save_pretrained(root / "base")
    first = adapter(root / "first", random_model("llama"), 1)
    second = adapter(root / "second", load_causal(Weights(str(root / "base"), (first,))), 2)
    return str(root / "base"), first, second


def storage_bytes(*models):
    storages = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
        for model in models
        for p in model.parameters()
    }
    return sum(storages.values())


@pytest.mark.parametrize("below", [0, 1], ids=["on the base", "on another adapter"])
def test_an_adapter_and_its_reference_share_their_weights(folders, below):
    base, *adapters = folders
    reference = Weights(base, tuple(adapters[:below]))
    policy = Weights(base, tuple(adapters[: below + 1]))
    both = load_policy_and_reference(policy, reference)
    merged, plain = load_causal(policy), load_causal(reference)
    for _ in range(2):  # switching back and forth leaves no trace
        trained = pair_logprobs(both.policy, PAIRS, 100)
        with both.reference() as model:
            untrained = pair_logprobs(model, PAIRS, 100)
            shared = storage_bytes(both.policy, model)
        assert np.abs(trained - pair_logprobs(merged, PAIRS, 100)).max() < 1e-4
        assert np.abs(untrained - pair_logprobs(plain, PAIRS, 100)).max() < 1e-4
    assert np.abs(trained - untrained).max() > 0.01
    assert shared < 1.5 * storage_bytes(plain)  # twice as much for two models


def test_models_that_share_no_weights_are_two(folders, tmp_path):
    base, first, second = folders
    random_model("llama", initializer_range=0.5).save_pretrained(tmp_path)
    for policy, reference in (
        (Weights(str(tmp_path)), Weights(base)),
        (Weights(base, (first, second)), Weights(base)),
        (Weights(base), Weights(base, (first,))),
        (Weights(base), Weights(base)),
    ):
        both = load_policy_and_reference(policy, reference)
        with both.reference() as model:
            assert model is not both.policy
            untrained = pair_logprobs(model, PAIRS, 100)
        assert np.array_equal(untrained, pair_logprobs(load_causal(reference), PAIRS, 100))
        trained = pair_logprobs(both.policy, PAIRS, 100)
        assert np.array_equal(trained, pair_logprobs(load_causal(policy), PAIRS, 100))
