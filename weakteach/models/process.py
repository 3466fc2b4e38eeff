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
# More than a batch frees at a time. If glibc keeps less, it gives freed memory back after every
# operation and takes it again, page by page: a fifth of the CPU time of small models.
KEPT_BYTES = 64 << 20
LIBRARIES = r"(transformers|peft|trl|accelerate)\b"
# HIP reads it too.
VISIBLE = "CUDA_VISIBLE_DEVICES"
# By this variable, Ray Train tells each worker of a group its device.
GIVEN = "ACCELERATE_TORCH_DEVICE"


def prepare_process(threads: int) -> None:
    """Set this process up: torch uses ``threads`` threads and one device, the allocator keeps what
    it will need again, the garbage collector leaves the imported libraries alone, and libraries
    show neither progress bars beside our own nor warnings of future changes in each other."""
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
    """Make torch compute on the device that this process was given and on no other.

    The workers of a group see each other's devices, so that these can exchange data, and each is
    told its own. Any other process computes on the first device that it sees: a worker of Ray sees
    only the devices that it was given, a process that Ray did not start sees all of the host.
    """
    if torch.distributed.is_initialized():
        given = torch.device(os.environ.get(GIVEN, "cpu"))
        if given.index is not None and torch.accelerator.is_available():
            torch.accelerator.set_device_index(given.index)
        return
    os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").partition(",")[0]


@cache
def _freeze_imports() -> None:
    """Exempt the imported libraries from garbage collection. Each training collects garbage, and to
    look through the libraries' million objects takes half a second. Done once per process, since
    later garbage would be exempted as well."""
    gc.collect()
    gc.freeze()
