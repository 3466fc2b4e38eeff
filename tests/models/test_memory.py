"""The estimate against what tiny models take: bytes of live tensors, counted at every operation."""

import weakref
from contextlib import contextmanager

import pytest
import torch
from families import SPECIALS
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.utils import add_fused_lm_head

from weakteach.artifacts.errors import UserError
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.memory import (
    CPU_LOGITS,
    Fit,
    choose_fit,
    reading_memory,
    shape_of,
    tokens_at_once,
    training_memory,
    typical_shape,
    ways_to_fit,
)
from weakteach.models.resources import Resources
from weakteach.models.tokens import PairTokens

GIB = 1 << 30
SIZES = {"vocab_size": 512, "max_position_embeddings": 512, **SPECIALS}
OPT = OPTConfig(
    hidden_size=128, word_embed_proj_dim=128, ffn_dim=512, num_hidden_layers=4,
    num_attention_heads=4, dropout=0.0, **SIZES,
)  # fmt: skip
LLAMA = LlamaConfig(
    hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, **SIZES,
)  # fmt: skip


class Live(TorchDispatchMode):
    """The most bytes that tensors made meanwhile held at a time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor.untyped_storage())
        return out

    def count(self, storage):
        place, size = storage.data_ptr(), storage.nbytes()
        if not size or place in self.seen:
            return
        self.seen.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, place, size)

    def free(self, place, size):
        self.seen.discard(place)
        self.now -= size


@contextmanager
def measured(model):
    live = Live()
    for parameter in model.parameters():
        live.count(parameter.untyped_storage())
    with live:
        yield live


def train_twice(model, rows, length):
    """Updates as TRL makes them: the fused head, AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    ids = torch.randint(5, 500, (rows, length))
    with measured(model) as live:
        optimizer = torch.optim.AdamW(trained, foreach=False)
        for _ in range(2):
            model(input_ids=ids, labels=ids, fused_lm_head=True).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return live.peak


@pytest.mark.parametrize("config", [OPT, LLAMA], ids=["opt", "llama"])
@pytest.mark.parametrize(("rows", "length"), [(2, 64), (16, 128)])
def test_full_training_within_20_percent(config, rows, length):
    model = AutoModelForCausalLM.from_config(config)
    add_fused_lm_head(model)
    peak = train_twice(model, rows, length)
    estimate = training_memory(shape_of(config.to_dict()), rows * length)
    assert estimate.total == pytest.approx(peak, rel=0.2)


@pytest.mark.parametrize("config", [OPT, LLAMA], ids=["opt", "llama"])
def test_adapters_within_20_percent(config):
    model = AutoModelForCausalLM.from_config(config)
    add_fused_lm_head(model)
    model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    peak = train_twice(model, 16, 128)
    shape = shape_of(config.to_dict())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.adapter_parameters(8) == trained
    assert training_memory(shape, 16 * 128, lora_rank=8).total == pytest.approx(peak, rel=0.2)


@pytest.mark.parametrize("config", [OPT, LLAMA], ids=["opt", "llama"])
def test_labeling_within_20_percent(config):
    config = type(config)(**{**config.to_dict(), "vocab_size": 32_000})
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(5, 500, (16, 512)).tolist()
    pairs = [PairTokens(row[:100], row[100:300], row[300:]) for row in ids]
    pair_logprobs(model, pairs[:1], 4096)
    with measured(model) as live:
        pair_logprobs(model, pairs, 4096)
    shape = shape_of(config.to_dict())
    estimate = reading_memory(shape, 4096, most_logits=CPU_LOGITS)
    assert estimate.total == pytest.approx(live.peak, rel=0.2)


CONFIGS = {
    "opt": OPTConfig(),
    "opt-1.3b": OPTConfig(
        hidden_size=2048, word_embed_proj_dim=2048, ffn_dim=8192, num_hidden_layers=24,
        num_attention_heads=32,
    ),
    "gpt2": GPT2Config(),
    "llama": LlamaConfig(tie_word_embeddings=False),
    "mistral": MistralConfig(),
    "qwen3": Qwen3Config(num_hidden_layers=4, tie_word_embeddings=True),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_by_the_config_alone(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS[name])
    counted = sum(p.numel() for p in model.parameters())
    assert shape_of(CONFIGS[name].to_dict()).parameters == pytest.approx(counted, rel=0.01)


def big(billions):
    """A llama of about that size."""
    return shape_of(
        {
            "model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096,
            "intermediate_size": 11_008, "num_attention_heads": 32,
            "num_hidden_layers": round(billions * 1e9 / 2.02e8),
        }
    )  # fmt: skip


def test_full_training_takes_20_bytes_a_parameter_under_ddp():
    shape = big(6.7)
    memory = training_memory(shape, 1, workers=4)
    assert memory.total / shape.parameters == pytest.approx(20, rel=0.01)
    assert memory.on_gpu > 80 * GIB
    assert training_memory(big(2.7), 2048, "bfloat16", workers=4).on_gpu > 40 * GIB


CHOICES = [
    (1.3, 4, 0, 1, 80, Fit()),
    (6.7, 4, 0, 1, 80, None),
    (6.7, 4, 0, 4, 80, Fit(shards=4)),
    (6.7, 64, 16, 1, 40, Fit(True)),
    (6.7, 64, 0, 8, 40, Fit(True, 8)),
]


@pytest.mark.parametrize(("billions", "rows", "rank", "workers", "gib", "fit"), CHOICES)
def test_the_cheapest_way_that_fits_is_chosen(billions, rows, rank, workers, gib, fit):
    ways = ways_to_fit("auto", workers)
    chosen = choose_fit(big(billions), rows * 512, "bfloat16", rank, workers, gib * GIB, ways)
    assert chosen == fit


def test_what_is_asked_for_is_the_only_way():
    asked = ("whole", "whole-checkpointed", "sharded", "sharded-checkpointed")
    ways = [Fit(), Fit(True), Fit(shards=4), Fit(True, 4)]
    assert [ways_to_fit(name, 4) for name in asked] == [[way] for way in ways]
    assert ways_to_fit("auto", 4) == ways
    assert ways_to_fit("auto", 1) == ways[:2]
    with pytest.raises(UserError, match="--train-workers"):
        Resources(fit="sharded", train_workers=1, gpus=1)
    with pytest.raises(UserError, match="--gpus 1"):
        Resources(fit="sharded-checkpointed", train_workers=2)


@pytest.mark.parametrize(
    ("share", "rows", "length", "most", "tokens"),
    [(8, 2, 512, 8192, 8192), (2, 2, 512, 8192, 2048), (8, 1, 512, 100, 512)],
)
def test_tokens_of_a_part(share, rows, length, most, tokens):
    assert tokens_at_once(share, rows, length, most) == tokens


def test_what_is_handed_over_is_what_the_trainer_takes(tmp_path):
    options = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    args = SFTConfig(**options, **Fit(True).arguments())
    assert args.activation_checkpointing
    args = TrainingArguments(**options, **Fit(True, 4).arguments())
    assert args.fsdp
    assert args.activation_checkpointing
    assert args.fsdp_plugin_args["fsdp_version"] == 2
    assert args.fsdp_plugin_args["reshard_after_forward"] is True
    assert args.fsdp_plugin_args["activation_checkpointing"] is False
    assert args.fsdp_plugin_args["state_dict_type"] == "FULL_STATE_DICT"


def test_a_config_that_tells_too_little_has_no_shape():
    assert shape_of({"model_type": "llama"}) is None
    nested = {"text_config": {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 1}}
    assert shape_of(nested).hidden == 4


@pytest.mark.parametrize(
    ("billions", "width", "layers"),
    # OPT-125M, OPT-1.3B, OPT-6.7B, OPT-13B, Qwen3-0.6B
    [(0.125, 768, 12), (1.3, 2048, 24), (6.7, 4096, 32), (13, 5120, 40), (0.6, 1024, 28)],
)
def test_a_typical_shape_is_near_those_of_models_of_its_size(billions, width, layers):
    shape = typical_shape(billions * 1e9)
    assert shape.parameters == pytest.approx(billions * 1e9, rel=0.1)
    assert 1 / 1.8 < shape.hidden / width < 1.8
    assert 1 / 2 < shape.layers / layers < 2
