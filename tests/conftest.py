"""What many tests need: quiet libraries, a Ray of their own, tiny models of every family."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray would have its workers wait for other tests that compute at the same time.
os.environ.setdefault("RAY_worker_niceness", "0")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from on_this_ray import on_this_ray

from weakteach.cli import app
from weakteach.models.tiny.family import base_folder
from weakteach.run.terminal import run

torch.set_num_threads(1)
# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


# These take longest: begun last, they would keep one of the workers when the others are done.
LONGEST = (
    "test_cli.py", "test_stream.py", "test_training.py", "test_chat_label.py", "test_packed.py",
    "test_sweep.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray with 4 logical CPUs in this process, as a laptop run has."""
    import ray

    from weakteach.models.resources import Resources
    from weakteach.run.cluster import start_ray

    start_ray(None, 2, Resources(), verbose=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_address(ray_here: None) -> str:
    """Of the Ray of this process: a command that joins it need not start one."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The folder of the smallest shipped model."""
    return base_folder("opt-45k")


@pytest.fixture
def here(capsys, monkeypatch):
    """Runs the command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments):
        code = run(app, [str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def here_on_ray(ray_here, here):
    """The same for commands that need Ray: on that of this process."""
    with on_this_ray():
        yield here
