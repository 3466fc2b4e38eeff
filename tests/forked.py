"""Processes of tests, forked from one that has imported the libraries and does nothing else: each
would spend ten seconds on that."""

import multiprocessing
import socket
from multiprocessing.context import ForkServerContext

import torch.multiprocessing

IMPORTED = ["weakteach.training.dpo", "weakteach.training.sft", "weakteach.training.reward_head"]


def forking() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def run_two(worker, *arguments):
    """Two processes that run ``worker(rank, port, *arguments)``; a port of this machine is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forking()  # the server that start_processes asks
    torch.multiprocessing.start_processes(
        worker, (port, *arguments), nprocs=2, start_method="forkserver"
    )
