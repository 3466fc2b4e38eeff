"""Base models in 4 bits, below adapters (NF4; QLoRA, Dettmers et al. 2023), by bitsandbytes."""

from importlib import util
from tempfile import TemporaryDirectory

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from weakteach.models.loading import (
    SAFELY,
    Weights,
    device,
    load_causal,
    no_dropout,
    reading,
)
from weakteach.models.spec import ModelError


def nf4_config(dtype: str) -> BitsAndBytesConfig:
    """The config that loads a base in NF4 and computes with its matrices in ``dtype``."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def load_over_nf4(weights: Weights, dtype: str) -> PreTrainedModel:
    """The causal language model, in eval mode on this process's GPU, with its layers' matrices in
    4 bits and all else in ``dtype``. Adapters are merged into the base before it is quantized.

    Raises ModelError if bitsandbytes or a CUDA GPU is missing, and where ``load_causal`` does.
    """
    if util.find_spec("bitsandbytes") is None:
        raise ModelError("A base in 4 bits needs bitsandbytes: pip install 'weakteach[nf4]'")
    if device().type != "cuda":
        raise ModelError("A base in 4 bits needs a CUDA GPU, and there is none here: --gpus 1")
    with TemporaryDirectory() as folder:
        if weights.adapters:
            load_causal(weights, dtype, placed=False).save_pretrained(folder)
        base = folder if weights.adapters else weights.base
        with reading(base):
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                base,
                dtype=getattr(torch, dtype),
                quantization_config=nf4_config(dtype),
                device_map={"": device()},
                **SAFELY,
                **no_dropout(AutoConfig.from_pretrained(base, trust_remote_code=False)),
            )
    return model.eval()
