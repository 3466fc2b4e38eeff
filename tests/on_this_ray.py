"""Commands that run in the process of a test, on the Ray that it has started."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def on_this_ray() -> Iterator[None]:
    """Commands join the Ray of this process, whose workers have loaded what they need, and print
    as wide as ``here`` does."""
    from weakteach.run import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        patch.setattr(cluster, "start_ray", lambda *_: cluster.Joined(by_address=True))
        yield
