"""What only a GPU can tell of trainings: run with ``-m gpu`` on a machine with one.

Models are small and random, so that any card will do; nothing is downloaded.
"""

import pytest
import torch
from families import CONFIGS
from packed_trainings import (
    HERE,
    TOKENIZER,
    arguments,
    assert_equal,
    first_gradients,
    ours,
    some_pairs,
)
from test_fitting import PAIRS, job
from transformers import AutoModelForCausalLM, LlamaConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.utils import add_fused_lm_head

from weakteach.models.loading import Weights
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.memory import Fit, reading_memory, shape_of, training_memory
from weakteach.models.nf4 import load_over_nf4
from weakteach.models.resources import Resources
from weakteach.models.tokens import PairTokens
from weakteach.training import fitting
from weakteach.training.recipes import Lora
from weakteach.training.sft import PackedSftTrainer
from weakteach.training.worker import lora_config, train_in_float32

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


def test_adapters_over_a_base_in_4_bits_learn_and_take_what_is_estimated(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    AutoModelForCausalLM.from_config(MIDDLE).save_pretrained(tmp_path / "base")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = load_over_nf4(Weights(str(tmp_path / "base")), "bfloat16")
    taken = torch.cuda.memory_allocated() - before
    assert isinstance(model.model.layers[0].mlp.up_proj, bitsandbytes.nn.Linear4bit)
    estimate = training_memory(shape_of(MIDDLE.to_dict()), 1, "bfloat16", 1, over_nf4=True)
    assert estimate.weights == pytest.approx(taken, rel=0.2)
    trainer = PackedSftTrainer(
        some_pairs(), HERE, model=model, processing_class=TOKENIZER,
        args=SFTConfig(**{**arguments(tmp_path / "run", 16), "max_steps": 20, "logging_steps": 1,
                          "learning_rate": 1e-3, "bf16": True}),
        peft_config=lora_config(Lora(rank=8)),
    )  # fmt: skip
    train_in_float32(trainer)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
