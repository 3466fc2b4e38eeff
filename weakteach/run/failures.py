"""Steps that failed for good, known to all trials of one run, so that each is tried once.

The driver makes the keeper, and it ends with the driver: submitted again, a study tries them again.
"""

from typing import Any

import ray


class FailureKeeper:
    """Why steps failed, by fingerprint."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def reason(self, fingerprint: str) -> str | None:
        return self._reasons.get(fingerprint)

    def tell(self, fingerprint: str, why: str) -> None:
        self._reasons.setdefault(fingerprint, why)


def start_keeper() -> Any:
    """A handle of a new keeper, on the head, where the driver's fate is its own."""
    head = {"node:__internal_head__": 0.001}
    return ray.remote(FailureKeeper).options(num_cpus=0, resources=head).remote()


class SharedFailures:
    """Why steps failed in any trial of the run; see ``computing.Failures``."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def get(self, fingerprint: str) -> str | None:
        why: str | None = ray.get(self._keeper.reason.remote(fingerprint))
        return why

    def __setitem__(self, fingerprint: str, reason: str) -> None:
        ray.get(self._keeper.tell.remote(fingerprint, reason))


def reason(error: BaseException) -> str:
    """The first line of an error, with its class where that says more than ours do."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
