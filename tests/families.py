"""Tiny random models of every supported family, with the embedded tokenizer's vocabulary."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from weakteach.models.tiny.pretraining import build_tokenizer

VOCABULARY = len(build_tokenizer())
SPECIALS = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    **SPECIALS,
}
CONFIGS = {
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        dropout=0.1,
        **SPECIALS,
    ),
    "llama": LlamaConfig(**LLAMA_LIKE),
    "mistral": MistralConfig(**LLAMA_LIKE),
    "qwen2": Qwen2Config(**LLAMA_LIKE),
    "gemma": GemmaConfig(**LLAMA_LIKE, head_dim=8),
    "qwen3": Qwen3Config(**LLAMA_LIKE, head_dim=8),
    "smollm3": SmolLM3Config(**LLAMA_LIKE, no_rope_layers=[1, 0]),
    "gemma3": Gemma3TextConfig(
        **LLAMA_LIKE,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "pythia": GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        **SPECIALS,
    ),
    "gpt-neo": GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=512,
        **SPECIALS,
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, **SPECIALS
    ),
}


def random_model(family: str, **changes: Any) -> PreTrainedModel:
    """The same weights at every call, wide enough apart that errors show; ``changes`` are config
    values."""
    config = CONFIGS[family]
    return randomized(type(config)(**{**config.to_dict(), **changes}))


def randomized(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    return model.eval()
