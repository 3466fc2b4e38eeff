"""Steps that failed for good, known to all trials of one run, so that each is tried once.

The driver makes the keeper, which ends with the driver: a study that is submitted again tries those
steps again.
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
    """The handle of a new keeper on the head: if the head is lost, so is the driver."""
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
    """The first line of an error's message, or the name of its class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
