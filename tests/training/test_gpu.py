"""What only a GPU can tell of trainings: run with ``-m gpu`` on a machine with one.

Models are small and random, so that any card will do; nothing is downloaded.
"""

import pytest
import torch
from families import CONFIGS
from packed_trainings import assert_equal, first_gradients, ours, some_pairs
from test_fitting import PAIRS, job
from transformers import AutoModelForCausalLM, LlamaConfig
from trl.trainer.utils import add_fused_lm_head

from weakteach.models.logprobs import pair_logprobs
from weakteach.models.memory import Fit, reading_memory, shape_of, training_memory
from weakteach.models.resources import Resources
from weakteach.models.tokens import PairTokens
from weakteach.training import fitting
from weakteach.training.recipes import Lora

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
MIDDLE = LlamaConfig(
    vocab_size=32_000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=8,
    num_attention_heads=16, num_key_value_heads=8, max_position_embeddings=2048,
    attn_implementation="sdpa",
)  # fmt: skip


@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "adapters"])
@pytest.mark.parametrize("kind", ["sft", "dpo", "reward"])
@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "gpt-neo"])
def test_checkpointed_activations_change_no_gradient(family, kind, lora, tmp_path):
    given = (kind, family, some_pairs(), lora, tmp_path, 16, Resources(train_tokens=80))
    kept, checkpointed = (first_gradients(ours(*given, fit=fit)) for fit in (Fit(), Fit(True)))
    assert_equal(checkpointed, kept)


def test_the_room_is_that_of_the_card_or_a_share_of_it():
    whole = torch.cuda.get_device_properties(0).total_memory
    assert fitting._room(1.0) == whole
    assert fitting._room(0.5) == whole / 2
    assert fitting.find_fit(job(gpus=1), AutoModelForCausalLM.from_config(MIDDLE), PAIRS) == Fit()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_of_a_training_within_20_percent(checkpointing):
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(MIDDLE)
    add_fused_lm_head(model)
    if checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    ids = torch.randint(5, 500, (16, 512), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, fused_lm_head=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    shape = shape_of(MIDDLE.to_dict())
    estimate = training_memory(shape, ids.numel(), "bfloat16", fit=Fit(checkpointing))
    assert estimate.total == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.2)


def test_the_estimate_of_labeling_within_20_percent():
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(MIDDLE).to(torch.bfloat16).eval()
    rows = torch.randint(5, 500, (32, 512)).tolist()
    pairs = [PairTokens(row[:100], row[100:300], row[300:]) for row in rows]
    pair_logprobs(model, pairs[:1], 16_384)
    torch.cuda.reset_peak_memory_stats()
    pair_logprobs(model, pairs, 16_384)
    estimate = reading_memory(shape_of(MIDDLE.to_dict()), 16_384, "bfloat16")
    assert estimate.total == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.2)
