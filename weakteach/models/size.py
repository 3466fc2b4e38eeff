"""How large a model is, without loading it."""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import safe_open

from weakteach.models.memory import Shape, feed_forward_widths, of_text, shape_in, typical_shape
from weakteach.models.spec import CONFIG, UNRESOLVED, Model, ModelError, fetch, read_config
from weakteach.models.tiny.family import FAMILY, SHIPPED, base_folder

# Thousands are a context or a number of steps, as in Phi-3-mini-4k-instruct.
SIZE_IN_NAME = re.compile(r"(\d+(?:\.\d+)?)([mb])(?![a-z]|[-_]?tokens)", re.IGNORECASE)
UNITS = {"m": 1e6, "b": 1e9}
GATED = ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "phi3", "olmo2")


def layer_parameters(model: Model) -> int | None:
    """Approximate number of parameters in a model's layers, without embeddings: from its name if
    it is an embedded model, from the tensors of a GGUF file, or else from its ``config.json``. None
    if these cannot be read or the hub cannot be reached."""
    name = model.content.partition(":")[2] if model.is_untrained else model.label
    if name in FAMILY:
        return FAMILY[name].parameters
    try:
        if model.is_gguf:
            return _gguf_parameters(Path(model.location))
        local = model.content.startswith("sha256:")
        folder = Path(model.location) if local else fetch(model, ["config.json"])
        return config_parameters(read_config(folder))
    except (ModelError, OSError, ValueError, ImportError):
        return None


def parameters(model: Model) -> float:
    """Number of a model's parameters: those of its layers for an embedded model, else by its config
    if that is on this machine, else the size in its name, else the number of values in its
    safetensors files; 0 if none of them tells. Asks no hub. Raises ModelError for a config that
    cannot be read."""
    if model.label in FAMILY:
        return FAMILY[model.label].parameters
    if shape := _shape_here(model):
        return shape.parameters
    if found := SIZE_IN_NAME.findall(model.label):
        # The largest, as a smaller one may be a context: Qwen2.5-7B-Instruct-1M.
        return max(float(number) * UNITS[unit.lower()] for number, unit in found)
    return float(sum(map(_values_in, Path(model.location).glob("*.safetensors"))))


def _shape_here(model: Model) -> Shape | None:
    """The model's shape by a config that is on this machine; None if there is none or it tells too
    little."""
    if model.content.startswith("sha256:"):
        return _shape_by_config(model, model.location)
    folder = _in_cache(model)
    return _shape_by_config(model, str(folder)) if folder else None


@cache
def _shape_by_config(model: Model, folder: str) -> Shape | None:
    # A plan asks for the size of a model once for each step. What a model is known by stands for
    # its config, so that is read once.
    return shape_in(folder)


def _values_in(file: Path) -> int:
    with safe_open(file, framework="np") as tensors:
        names = tensors.keys()
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)


def shape_for(model: Model) -> Shape | None:
    """The model's shape by its config where that is at hand, else the shape of a typical decoder of
    its size; None if the size is unknown, too. Asks the hub only for a model whose revision is
    resolved."""
    shape = None
    if model.label in SHIPPED:
        shape = shape_in(base_folder(model.label))
    elif model.content.startswith("sha256:"):
        shape = shape_in(model.location)
    elif not model.is_untrained:
        folder = _cached(model)
        shape = shape_in(folder) if folder else None
    size = parameters(model)
    return shape or (typical_shape(size) if size else None)


def _cached(model: Model) -> Path | None:
    """A folder with the config of a hub model: fetched if its revision is resolved, else from the
    local cache. None if there is none."""
    if not model.content.endswith(f"@{UNRESOLVED}"):
        try:
            return fetch(model, [CONFIG])
        except ModelError:
            return None
    return _in_cache(model)


def _in_cache(model: Model) -> Path | None:
    """A folder of the local cache with the config of a hub model; None if there is none."""
    from huggingface_hub import try_to_load_from_cache  # slow to import; only hub models need it

    revision = model.content.rpartition("@")[2]
    wanted = None if revision == UNRESOLVED else revision
    found = try_to_load_from_cache(model.label, CONFIG, revision=wanted)
    return Path(found).parent if isinstance(found, str) else None


def context_of(model: Model) -> int | None:
    """The most tokens that a model can read, from its ``config.json`` or the header of a GGUF file.
    None where that gives no limit. Raises ModelError if the hub cannot be reached or the config
    cannot be read."""
    if model.is_gguf:
        return _gguf_context(Path(model.location))
    if model.is_untrained:
        folder = base_folder(SHIPPED[0])  # all embedded models have the same context
    elif model.content.startswith("sha256:"):
        folder = Path(model.location)
    else:
        folder = fetch(model, ["config.json"])
    config = of_text(read_config(folder))
    return config.get("max_position_embeddings") or config.get("n_positions")


def config_parameters(config: Mapping[str, Any]) -> int | None:
    """Number of attention and MLP weights in all layers of a decoder, from the shapes in its
    config, counted as by Kaplan et al. 2020; None if the config lacks these shapes."""
    config = of_text(config)

    def first(*names: str) -> int | None:
        return next((config[n] for n in names if isinstance(config.get(n), int)), None)

    hidden = first("hidden_size", "n_embd", "d_model")
    layers = first("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    if hidden is None or layers is None:
        return None
    heads = first("num_attention_heads", "n_head", "num_heads") or 1
    width = heads * (first("head_dim") or hidden // heads)
    shared = (first("num_key_value_heads") or heads) / heads
    read, inner = feed_forward_widths(config, hidden)
    is_gated = config.get("model_type") in GATED or read < inner  # as experts are
    matrices = 3 if is_gated else 2
    return int(layers * (2 * hidden * width * (1 + shared) + matrices * hidden * inner))


def _gguf_context(file: Path) -> int | None:
    from gguf import GGUFReader  # as below

    fields = GGUFReader(file).fields
    found = next((name for name in fields if name.endswith(".context_length")), None)
    return int(fields[found].contents()) if found else None


def _gguf_parameters(file: Path) -> int:
    from gguf import GGUFReader  # an optional package, needed for GGUF files alone

    tensors = GGUFReader(file).tensors
    return sum(int(one.n_elements) for one in tensors if one.name.startswith("blk."))
