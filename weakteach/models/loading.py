"""The weights behind a model, an artifact or an adapter, loaded on this process's device."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import util
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.models.conversion import ConversionError, convert
from weakteach.models.spec import WEIGHT_FILE_BYTES, Model, ModelError, fetch

# Only the weights at the top: some repositories hold them again in other layouts.
BESIDE_WEIGHTS = ["*.json", "*.txt", "*.model", "*.jinja"]
HUB_FILES = ["model*.safetensors", *BESIDE_WEIGHTS]
PICKLED_FILES = ["pytorch_model*.bin", *BESIDE_WEIGHTS]
# Tensors of a GGUF file that hold a factor for each frequency of rotary positions.
ROPE_TENSORS = ("rope_freqs", "rope_factors_")
# Families whose first position is the one after the id of the pad token: as many places of their
# table are never read.
POSITIONS_AFTER_PAD = {
    "roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet",
    "xmod", "data2vec-text", "ibert", "longformer", "luke", "markuplm",
}  # fmt: skip
ADAPTER_CONFIG = "adapter_config.json"
SAFELY: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True}


@runtime_checkable
class StartsFrom(Protocol):
    """A training step: it starts from a model or from another training step's artifact."""

    start: "Model | Step"


def tokenizer_folder(store: Store, policy: Model | Step) -> Path:
    """A local folder with the policy's tokenizer, which is that of the model that its trainings
    started from, since they keep it. For a hub model no weights are fetched. Raises ModelError."""
    while isinstance(policy, StartsFrom):
        policy = policy.start
    if not isinstance(policy, Model):
        return store.local(policy)
    is_on_hub = not (policy.is_untrained or policy.content.startswith("sha256:"))
    return fetch(policy, BESIDE_WEIGHTS) if is_on_hub else weights_folder(policy)


def weights_folder(model: Model) -> Path:
    """A local folder with the model's weights, config and tokenizer; fetched from the hub if the
    model is a hub id. Raises ModelError for an embedded model that is not shipped, and when the
    folder is gone or the hub out of reach."""
    if model.is_untrained:
        raise ModelError(
            f"{model.label} is not shipped: a study pretrains it, or run "
            f"`weakteach pretrain {model.label} --out DIR` and give DIR"
        )
    if not model.content.startswith("sha256:"):
        return fetch(model, PICKLED_FILES if model.is_pickled else HUB_FILES)
    folder = Path(model.location)
    if not folder.is_dir():
        raise ModelError(f"The folder {folder} of model {model.label} is gone")
    return folder


def dequantize(model: Model, out: Path) -> None:
    """Write a GGUF model as a plain float32 model folder. Raises ModelError if the file is missing
    or damaged, if it scales positions, which transformers' reader would pass over, or if the
    package gguf is not installed."""
    file = Path(model.location)
    if not file.is_file() or util.find_spec("gguf") is None:
        raise ModelError(f"To read {file}: the file must exist, and pip install 'weakteach[gguf]'")
    options: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    try:
        if scaling := _scaling_in(file):
            raise ModelError(
                f"{file} scales the positions of its model ({scaling}), and transformers would "
                "read another model, without it: give the model's own folder or hub id"
            )
        loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    except ModelError:
        raise
    except Exception as error:  # the readers check little: a damaged file may raise anything
        raise ModelError(
            f"{file} is damaged or no GGUF model of a kind that transformers reads "
            f"({type(error).__name__}: {error})"
        ) from error
    # It is no longer quantized but still says so, and saving and training would refuse it.
    loaded.hf_quantizer = None  # type: ignore[assignment]
    del loaded.config.quantization_config
    loaded.save_pretrained(out, max_shard_size=WEIGHT_FILE_BYTES)
    tokenizer.save_pretrained(out)


def _scaling_in(file: Path) -> str:
    """The name of the tensor or field by which a GGUF file scales rotary positions; empty if it
    does not."""
    from gguf import GGUFReader  # an optional package, needed for GGUF files alone

    reader = GGUFReader(file)
    tensors = [one.name for one in reader.tensors if one.name.startswith(ROPE_TENSORS)]
    fields = [
        f"{name} = {kind}"
        for name, field in reader.fields.items()
        if name.endswith(".rope.scaling.type") and (kind := field.contents()) != "none"
    ]
    return next(iter(tensors + fields), "")


def write_converted(model: Model, out: Path) -> None:
    """Write a model whose weights are pickled as a plain model folder. Raises ModelError."""
    folder = weights_folder(model)
    try:
        convert(folder, out)
    except ConversionError as error:
        raise ModelError(f"Model {model.label} cannot be converted: {error}") from error


@dataclass(frozen=True)
class Weights:
    """Local folders of one policy: a full model, and the LoRA adapters to merge into it in turn."""

    base: str
    adapters: tuple[str, ...] = ()


def load_causal(weights: Weights, dtype: str = "float32", placed: bool = True) -> PreTrainedModel:
    """The causal language model, adapters merged, in eval mode; on this process's device if
    ``placed``.

    Raises ModelError for weights that are damaged or pickled, or that need code of their own to
    run.
    """
    with reading(weights.base):
        config = AutoConfig.from_pretrained(weights.base, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            weights.base, dtype=getattr(torch, dtype), **SAFELY, **no_dropout(config)
        )
    merged = _merged(model, weights.adapters)
    return _placed(merged) if placed else merged.eval()


def load_policy(weights: Weights, dtype: str = "float32") -> PreTrainedModel:
    """The causal language model as its last training left it, in eval mode on this process's
    device. Raises ModelError where ``load_causal`` does.

    In bfloat16 the last adapter stays unmerged, as it was trained: the sum would be rounded, which
    loses small updates.
    """
    *earlier, last = weights.adapters or (None,)
    if last is None or dtype == "float32":
        return load_causal(weights, dtype)
    model = load_causal(Weights(weights.base, tuple(earlier)), dtype)
    _adapted(model, last)
    return model


def load_with_head(weights: Weights, dtype: str, seed: int, placed: bool = True) -> PreTrainedModel:
    """The language model with a scalar head in place of its own, adapters merged, in eval mode; on
    this process's device if ``placed``. The head's weights are drawn from the seed.

    Raises ModelError where ``load_causal`` does, and if weights below the head are missing.
    """
    torch.manual_seed(seed)
    with reading(weights.base), _quiet_loading():  # else it warns that the head is new
        config = AutoConfig.from_pretrained(weights.base, trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            weights.base,
            num_labels=1,
            dtype=getattr(torch, dtype),
            **SAFELY,
            output_loading_info=True,
            **no_dropout(config),
        )
    below_head = [key for key in info["missing_keys"] if key.startswith(model.base_model_prefix)]
    if below_head:
        raise ModelError(f"{weights.base} lacks weights of its model ({', '.join(below_head)})")
    model = _merged(model, weights.adapters)
    return _placed(model) if placed else model.eval()


@contextmanager
def reading(folder: str | Path) -> Iterator[None]:
    """A context for loading from a model's folder: raises ModelError if the folder holds no
    safetensors, and in place of the errors of libraries that cannot load what it holds."""
    if not any(Path(folder).glob("*.safetensors")):
        raise ModelError(f"{folder} holds no weights as safetensors, and others are not loaded")
    try:
        yield
    # What the libraries raise for damaged files, and for a model that comes with its own code.
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be loaded ({type(error).__name__}: {error})") from error


@contextmanager
def _quiet_loading() -> Iterator[None]:
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _merged(model: PreTrainedModel, adapters: tuple[str, ...]) -> PreTrainedModel:
    """The model with the adapters merged in turn; it may have another head than the models that the
    adapters were trained on."""
    for adapter in adapters:
        with reading(adapter):
            config = PeftConfig.from_pretrained(adapter)
            config.task_type = None  # else peft wraps the model for that task's head
            model = PeftModel.from_pretrained(model, adapter, config=config).merge_and_unload()
    return model


@dataclass(frozen=True)
class PolicyAndReference:
    """A trained model and the one that its training started from. They share one set of weights in
    memory where the policy is an adapter on the reference."""

    policy: PreTrainedModel
    _other: PreTrainedModel | PeftModel

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """A context that gives the reference, which may be used only within it."""
        if not isinstance(self._other, PeftModel):
            yield self._other
            return
        # PEFT's own context also looks through all weights, which takes 10 ms with 12 layers.
        try:
            for layer in self._adapted:
                layer.enable_adapters(False)
            yield self.policy
        finally:
            for layer in self._adapted:
                layer.enable_adapters(True)

    @cached_property
    def _adapted(self) -> list[BaseTunerLayer]:
        return [layer for layer in self._other.modules() if isinstance(layer, BaseTunerLayer)]


def load_policy_and_reference(
    policy: Weights, reference: Weights, dtype: str = "float32"
) -> PolicyAndReference:
    """Both models, loaded in eval mode on this process's device.

    Where the policy is the reference with one more adapter, that adapter stays unmerged, to be
    switched on and off; else they are two models.
    """
    other = load_causal(reference, dtype)
    extra = policy.adapters[len(reference.adapters) :]
    if len(extra) != 1 or policy != Weights(reference.base, (*reference.adapters, *extra)):
        return PolicyAndReference(load_policy(policy, dtype), other)
    return PolicyAndReference(other, _adapted(other, extra[0]))


def _adapted(model: PreTrainedModel, adapter: str) -> PeftModel:
    """The model below an adapter, in eval mode. The model itself has the adapter's layers now."""
    with reading(adapter):
        adapted = PeftModel.from_pretrained(model, adapter)
    return adapted.eval()


def _placed(model: PreTrainedModel) -> PreTrainedModel:
    """The model in eval mode, moved to this process's device."""
    torch.nn.Module.to(model, device())
    return model.eval()


def no_dropout(config: Any) -> dict[str, float]:
    """Config values that switch all dropout off. Without them OPT's reference log-probabilities
    would be noisy: it calls F.dropout, which no patching of dropout modules reaches."""
    names = ("dropout", "attention_dropout", "activation_dropout", "layerdrop",
             "resid_pdrop", "embd_pdrop", "attn_pdrop", "embed_dropout", "resid_dropout",
             "hidden_dropout")  # fmt: skip
    return {name: 0.0 for name in names if getattr(config, name, None)}


def load_reward_model(folder: str | Path, dtype: str = "float32") -> PreTrainedModel:
    """A sequence-classification model with one output, in eval mode on this process's device.

    Raises ModelError if it has several outputs, or no trained head at all: transformers would
    put a random one there and only warn.
    """
    with reading(folder):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), **SAFELY, output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{Path(folder).name} is no reward model: it has no trained head ({', '.join(missing)})"
        )
    if model.config.num_labels != 1:
        raise ModelError(
            f"{Path(folder).name} has {model.config.num_labels} outputs, not one reward"
        )
    return _placed(model)


def context_length(model: PreTrainedModel) -> int:
    """The most tokens that the model can read; ``sys.maxsize`` if its config gives no limit."""
    return _context(model.config)


def context_in(folder: str | Path) -> int:
    """The ``context_length`` of the model in a folder, by its config."""
    return _context(AutoConfig.from_pretrained(str(folder), trust_remote_code=False))


def _context(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    places: int = getattr(text, "max_position_embeddings", sys.maxsize)
    if text.model_type not in POSITIONS_AFTER_PAD:
        return places
    pad = text.pad_token_id
    return places - (1 if pad is None else pad) - 1


def weights_of(store: Store, policy: Model | Step) -> Weights:
    """Local folders of a pretrained model or of a training step's artifact."""
    if isinstance(policy, Model):
        return Weights(str(weights_folder(policy)))
    folder = store.local(policy)
    if not (folder / ADAPTER_CONFIG).exists():
        return Weights(str(folder))
    if not isinstance(policy, StartsFrom):
        raise ModelError(f"{policy} holds an adapter, but no model that it belongs to")
    start = weights_of(store, policy.start)
    return Weights(start.base, (*start.adapters, str(folder)))


def device() -> torch.device:
    """The accelerator of this process, or its CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
