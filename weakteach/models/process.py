"""How a process that computes with models is set up."""

import ctypes
import gc
import os
import sys
import warnings
from functools import cache

import torch
from transformers.utils import logging

M_TOP_PAD = -2  # malloc.h
# More than a batch frees at a time. Below it, glibc gives freed memory back after every operation
# and takes it again, page by page: a fifth of the CPU time of small models.
KEPT_BYTES = 64 << 20
LIBRARIES = r"(transformers|peft|trl|accelerate)\b"
# HIP reads it too.
VISIBLE = "CUDA_VISIBLE_DEVICES"
# What Ray Train tells each worker of a group.
GIVEN = "ACCELERATE_TORCH_DEVICE"


def prepare_process(threads: int) -> None:
    """``threads`` for torch, one device, an allocator that keeps what it will need again, a garbage
    collector that leaves the imported libraries alone, and no bars beside our own progress, nor
    what libraries tell each other of names that will change."""
    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module=LIBRARIES)
    keep_one_device()
    _freeze_imports()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; musl has none
            libc.mallopt(M_TOP_PAD, KEPT_BYTES)


def keep_one_device() -> None:
    """See to it that torch computes on the device that this process was given and on no other.

    The workers of a group see each other's devices, so that these can exchange data, and each is
    told its own. Any other process computes on one, the first that it sees: a worker of Ray sees
    what it was given, and a process that Ray did not start all that the host has.
    """
    if torch.distributed.is_initialized():
        given = torch.device(os.environ.get(GIVEN, "cpu"))
        if given.index is not None and torch.accelerator.is_available():
            torch.accelerator.set_device_index(given.index)
        return
    os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").partition(",")[0]


@cache
def _freeze_imports() -> None:
    """Once per process, so that no later garbage is kept. Each training collects garbage, which
    takes half a second where a million objects of libraries are looked through."""
    gc.collect()
    gc.freeze()
