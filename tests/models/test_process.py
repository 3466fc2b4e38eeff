"""How a process that computes with models is set up."""

import subprocess
import sys

import pytest

TOLD = """
import gc
import warnings
from weakteach.models.process import prepare_process

before = gc.get_freeze_count()
prepare_process(1)
frozen = gc.get_freeze_count()
kept = [[] for _ in range(1000)]
prepare_process(1)
print(before, frozen, gc.get_freeze_count())
for module in ("transformers.modeling_utils", "mine"):
    warnings.warn_explicit(f"of {module}", FutureWarning, "file.py", 1, module=module)
"""


@pytest.fixture(scope="module")
def prepared():
    """A process of its own, since a setting of pytest stands before it here."""
    return subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True)


def test_what_libraries_tell_each_other_reaches_no_user(prepared):
    assert "of mine" in prepared.stderr
    assert "of transformers" not in prepared.stderr


def test_the_garbage_collector_leaves_imported_libraries_alone_and_later_garbage_it_does_not(
    prepared,
):
    before, frozen, again = map(int, prepared.stdout.split())
    assert before == 0
    assert frozen > 100_000
    assert again <= frozen  # a frozen object may go, but none comes
