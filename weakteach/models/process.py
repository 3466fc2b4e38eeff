"""How a process that computes with models is set up."""

import ctypes
import sys

import torch

M_TOP_PAD = -2  # malloc.h
# More than a batch frees at a time. Below it, glibc gives freed memory back after every operation
# and takes it again, page by page: a fifth of the CPU time of small models.
KEPT_BYTES = 64 << 20


def prepare_process(threads: int) -> None:
    """``threads`` for torch, and an allocator that keeps what it will need again."""
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc; musl has none
            libc.mallopt(M_TOP_PAD, KEPT_BYTES)
