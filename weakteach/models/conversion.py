"""Converts pickled weights (``pytorch_model.bin``) to safetensors, once for each model.

The conversion runs in a process of its own, which holds no secrets and loads nothing but tensors:
anything else that a pickle asks for is refused, never run. That process runs this module as a
script.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from weakteach.models.spec import TOKENIZER_FILES, WEIGHT_FILE_BYTES

# The process reads a stranger's pickle, so it gets these variables and no keys or tokens.
ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "LANG")
INDEX = "pytorch_model.bin.index.json"
REFUSED = 3


class ConversionError(Exception):
    """Why a folder cannot be converted, in one sentence."""


def convert(folder: Path, out: Path) -> None:
    """Write the model of a folder with pickled weights as a folder of safetensors, in the dtype of
    the weights, and copy the tokenizer's files along. Raises ConversionError."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "weakteach.models.conversion", str(folder), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == REFUSED:
        raise ConversionError(done.stdout)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise ConversionError(f"the process ended with {done.returncode}: {''.join(last)}")


def weight_files(folder: Path) -> list[Path]:
    """The pickled files: one, or the shards that the index names. Raises ConversionError."""
    index = folder / INDEX
    if not index.is_file():
        return [folder / "pytorch_model.bin"]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ConversionError(f"{INDEX} is damaged ({error})") from error
    if outside := [name for name in names if Path(str(name)).name != name]:
        raise ConversionError(f"{INDEX} names a file of another folder ({outside[0]})")
    return [folder / name for name in names]


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of one pickled file, memory-mapped rather than read. Raises ConversionError."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise ConversionError(f"{file.name} is missing") from error
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{file.name} wants more than tensors, so it is not read: use another model"
        ) from error
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError) as error:
        raise ConversionError(f"{file.name} is damaged, or of before torch 1.6: {error}") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise ConversionError(f"{file.name} holds other things than named tensors: use another")
    return state


def write_safetensors(folder: Path, out: Path) -> None:
    """Convert the folder, within the process that ``convert`` starts. Raises ConversionError."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConversionError(f"its config cannot be read: {error}") from error
    kind: Any = getattr(transformers, (config.architectures or ["none named"])[0], None)
    if kind is None or not issubclass(kind, transformers.PreTrainedModel):
        raise ConversionError(f"transformers has no {config.architectures}, which its config asks")
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        state |= load_tensors(file)
    floats = [tensor.dtype for tensor in state.values() if tensor.is_floating_point()]
    if not floats:
        raise ConversionError("it holds no weights")
    try:
        # This corrects names (old repositories leave out prefixes) and ties shared weights.
        model, info = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=floats[0], output_loading_info=True
        )
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        raise ConversionError(f"its weights do not fit its config: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise ConversionError(f"it lacks weights of its model ({', '.join(missing[:5])})")
    model.save_pretrained(out, max_shard_size=WEIGHT_FILE_BYTES)
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


if __name__ == "__main__":
    try:
        write_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
    except ConversionError as refusal:
        print(refusal)
        sys.exit(REFUSED)
