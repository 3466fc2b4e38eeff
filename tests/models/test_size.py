"""Sizes of models, without their weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from weakteach.models.memory import shape_of, training_memory
from weakteach.models.size import config_parameters, layer_parameters, parameters
from weakteach.models.spec import Model, find_model


def test_embedded_models_are_known_by_name_and_by_configuration(tmp_path):
    shipped = find_model("opt-230k")
    assert layer_parameters(shipped) == 4 * (12 * 64**2 + 13 * 64)
    renamed = Model(shipped.content, "mine", shipped.location)
    assert layer_parameters(renamed) == 4 * 12 * 64**2
    assert layer_parameters(find_model("llama-1m")) > layer_parameters(find_model("llama-230k"))


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ({"hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072}, 85),  # OPT-125M
        (
            {
                "model_type": "llama",
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
            },
            6979,
        ),  # Llama-3-8B, without its embeddings
        ({"text_config": {"hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072}}, 85),
        ({"hidden_size": 768}, None),
    ],
)
def test_the_weights_of_layers_follow_from_a_configuration(config, millions):
    found = config_parameters(config)
    assert (found and round(found / 1e6)) == millions


MIXTURES = {
    "Qwen3-30B-A3B": (30.5, {
        "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_experts": 128, "num_experts_per_tok": 8,
    }),
    "OLMoE-1B-7B": (6.9, {
        "model_type": "olmoe", "vocab_size": 50304, "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 1024,
        "num_experts": 64, "num_experts_per_tok": 8,
    }),
    "Mixtral-8x7B": (46.7, {
        "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2,
    }),
    "DeepSeek-V2-Lite-like": (15.6, {
        "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048,
        "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
        "n_shared_experts": 2, "num_experts_per_tok": 6, "tie_word_embeddings": False,
    }),
}  # fmt: skip


@pytest.mark.parametrize(("billions", "config"), MIXTURES.values(), ids=MIXTURES)
def test_all_experts_of_a_mixture_count(billions, config):
    shape = shape_of(config)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.05)
    tables = 2 * config["vocab_size"] * config["hidden_size"]
    assert config_parameters(config) == pytest.approx(shape.parameters - tables, rel=0.001)
    # What a token leaves behind is of the experts that read it.
    one = shape_of({**config, "num_experts_per_tok": 1})
    few, all_of_them = (training_memory(form, 4096) for form in (one, shape))
    assert few.activations < all_of_them.activations
    assert few.weights == all_of_them.weights


def test_a_model_without_a_configuration_has_no_known_size(tmp_path):
    assert layer_parameters(Model("sha256:0", "x", str(tmp_path))) is None


def test_a_model_of_no_known_name_has_the_values_of_its_files_whatever_their_dtype(tmp_path):
    for dtype in (torch.float32, torch.bfloat16):
        save_file({"a": torch.zeros(3, 4, dtype=dtype)}, tmp_path / "model.safetensors")
        assert parameters(Model("sha256:0", "x", str(tmp_path))) == 12


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen2.5-7B-Instruct-1M", 7e9),
        ("microsoft/Phi-3-mini-4k-instruct", 0),
        ("togethercomputer/LLaMA-2-7B-32K", 7e9),
        ("me/llama-8b-sft-10k", 8e9),
        ("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", 1.1e9),
        ("HF1BitLLM/Llama3-8B-1.58-100B-tokens", 8e9),
        ("facebook/opt-125m", 125e6),
        ("Qwen/Qwen3-0.6B", 0.6e9),
    ],
)
def test_no_context_or_number_of_steps_is_taken_for_the_size(name, size):
    assert parameters(find_model(name, resolve=False)) == pytest.approx(size, rel=0.01)


CONFIG = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100, "model_type": "llama"}


@pytest.mark.parametrize("place", ["folder", "cache", "cache of a commit"])
def test_a_config_at_hand_tells_more_than_a_name(tmp_path, monkeypatch, place):
    name, commit = "org/model-7b", "0" * 40
    model = Model(f"sha256:{place}", name, str(tmp_path))
    folder = tmp_path
    if place != "folder":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        folder = tmp_path / "models--org--model-7b" / "snapshots" / commit
        model = Model(f"{name}@{commit if 'commit' in place else 'unresolved'}", name)
        (folder.parents[1] / "refs").mkdir(parents=True)
        (folder.parents[1] / "refs" / "main").write_text(commit)
        folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert parameters(model) == shape_of(CONFIG).parameters


def test_what_the_config_of_a_language_model_does_not_say_that_of_the_whole_does():
    text = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}
    for tied in (False, True):
        assert shape_of({"text_config": text, "tie_word_embeddings": tied}).is_tied == tied
