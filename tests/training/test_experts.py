"""Training of mixtures of experts."""

import pytest
import torch
from families import CONFIGS, LLAMA_LIKE
from packed_trainings import assert_equal, first_gradients, ours, some_pairs
from transformers import MixtralConfig, OlmoeConfig, Qwen3MoeConfig

from weakteach.models.resources import Resources

EXPERTS = {
    "olmoe": OlmoeConfig(**LLAMA_LIKE, num_experts=4, num_experts_per_tok=2),
    "qwen3-moe": Qwen3MoeConfig(
        **LLAMA_LIKE, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "mixtral": MixtralConfig(
        **LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2, output_router_logits=True
    ),
}


@pytest.mark.parametrize(
    ("family", "kind"),
    [("olmoe", "sft"), ("mixtral", "sft"), ("qwen3-moe", "dpo"), ("mixtral", "weighted")],
)
def test_an_update_does_not_depend_on_how_it_is_cut(monkeypatch, tmp_path, family, kind):
    monkeypatch.setitem(CONFIGS, family, EXPERTS[family])
    pairs = some_pairs()

    def gradients(train_tokens):
        resources = Resources(train_tokens=train_tokens)
        trainer = ours(
            "sft" if kind == "sft" else "dpo", family, pairs, None, tmp_path, 16, resources
        )
        if kind == "weighted":
            trainer.weigh(torch.linspace(0.1, 0.5, len(pairs)))
        return first_gradients(trainer)

    assert_equal(gradients(80), gradients(100_000))
