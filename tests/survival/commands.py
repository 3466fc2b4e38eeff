"""A command line run in this process."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from weakteach.cli import app
from weakteach.run.terminal import run


def weakteach(words: Sequence[str]) -> tuple[int, str, str]:
    """Run ``weakteach`` with these words; its exit code, and what it wrote to stdout and stderr.

    Raises whatever is not an error that the command tells of.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(app, words)
    return code, out.getvalue(), err.getvalue()
