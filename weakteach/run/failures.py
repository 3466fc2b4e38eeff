"""Steps that failed for good, known to all trials of one run, so that each is tried once.

The driver makes the keeper, and it ends with the driver: submitted again, a study tries them again.
"""

from typing import Any

import ray

from weakteach.artifacts.errors import StepError, StorageError
from weakteach.artifacts.step import Step


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
    """What this trial's steps, and those of others, failed with; see ``computing.Failures``.

    An error of the storage passes and says nothing against the step: others may try it.
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper
        self._own: dict[Step, Exception] = {}

    def __contains__(self, step: Step) -> bool:
        if step not in self._own:
            why = ray.get(self._keeper.reason.remote(step.fingerprint))
            if why is not None:
                self._own[step] = StepError(why)
        return step in self._own

    def __getitem__(self, step: Step) -> Exception:
        return self._own[step]

    def __setitem__(self, step: Step, error: Exception) -> None:
        self._own[step] = error
        if not isinstance(error, OSError | StorageError):
            ray.get(self._keeper.tell.remote(step.fingerprint, reason(error)))


def reason(error: BaseException) -> str:
    """The first line of an error, with its class where that says more than ours do."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
