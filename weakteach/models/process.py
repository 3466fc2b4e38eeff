"""How a process that computes with models is set up."""

import ctypes
import gc
import sys
from functools import cache

import torch

M_TOP_PAD = -2  # malloc.h
# More than a batch frees at a time. Below it, glibc gives freed memory back after every operation
# and takes it again, page by page: a fifth of the CPU time of small models.
KEPT_BYTES = 64 << 20


def prepare_process(threads: int) -> None:
    """``threads`` for torch, an allocator that keeps what it will need again, and a garbage
    collector that leaves the imported libraries alone."""
    torch.set_num_threads(threads)
    _freeze_imports()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; musl has none
            libc.mallopt(M_TOP_PAD, KEPT_BYTES)


@cache
def _freeze_imports() -> None:
    """Once per process, so that no later garbage is kept. Each training collects garbage, which
    takes half a second where a million objects of libraries are looked through."""
    gc.collect()
    gc.freeze()
