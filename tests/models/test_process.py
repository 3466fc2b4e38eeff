"""How a process that computes with models is set up."""

import subprocess
import sys

TOLD = """
import warnings
from weakteach.models.process import prepare_process

prepare_process(1)
for module in ("transformers.modeling_utils", "mine"):
    warnings.warn_explicit(f"of {module}", FutureWarning, "file.py", 1, module=module)
"""


def test_what_libraries_tell_each_other_reaches_no_user():
    """In a process of its own, since a setting of pytest stands before it here."""
    done = subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True)
    assert "of mine" in done.stderr
    assert "of transformers" not in done.stderr
