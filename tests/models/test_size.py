"""Sizes of models, without their weights."""

import pytest

from weakteach.models.size import config_parameters, layer_parameters
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
        ({"hidden_size": 768}, None),
    ],
)
def test_the_weights_of_layers_follow_from_a_configuration(config, millions):
    found = config_parameters(config)
    assert (found and round(found / 1e6)) == millions


def test_a_model_without_a_configuration_has_no_known_size(tmp_path):
    assert layer_parameters(Model("sha256:0", "x", str(tmp_path))) is None
