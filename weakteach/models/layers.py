"""The kinds of layers that a model has, by its config alone."""

from transformers import PreTrainedConfig

# What these keep of earlier tokens are keys and values, a place for each token.
ATTENDING = {"full_attention", "sliding_attention"}

# Families without any attention whose configs name no layers.
RECURRENT = {"rwkv", "xlstm"}


def stateful_layers(config: PreTrainedConfig) -> list[str]:
    """The kinds of a model's layers that keep something else of earlier tokens than keys and
    values: a state, say, into which all of them went."""
    if config.model_type in RECURRENT:
        return [config.model_type]
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    return sorted(set(kinds) - ATTENDING)
