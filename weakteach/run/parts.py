"""A study, or the part of it that is computed now, and how it ended."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weakteach.study.measures import Arm

if TYPE_CHECKING:  # imports scipy, which is slow and which plans do without
    from weakteach.results.findings import Findings

SPENT = "The budget is spent: the same command with a larger --budget goes on from here."


def deadline_of(budget: float | None) -> float:
    """When a budget of seconds that begins now is spent, in seconds since the epoch."""
    return math.inf if budget is None else time.time() + budget


@dataclass(frozen=True)
class Part:
    """The arms of a study that are computed now. No arm starts after ``deadline`` (seconds since
    the epoch). ``computed`` counts the steps that earlier parts computed in this run, ``failures``
    are the reasons, by fingerprints of steps, for which steps of those parts failed."""

    arms: list[Arm]
    deadline: float = math.inf
    computed: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a study, or a part of it, ended. ``interrupted`` says that a Ctrl-C or a SIGTERM ended
    it, ``late`` counts the arms that were not started before the deadline, and ``failures`` are
    reasons by fingerprints of steps."""

    computed: int
    findings: "Findings"
    interrupted: bool
    late: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
