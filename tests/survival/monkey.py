"""A monkey that kills a study's processes at random times, drawn from a seed."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# How long a study is left alone after its start: time to get to work at all.
SECONDS_TO_START = 5.0
# Of the time that a study takes undisturbed: its kills come within it, since each makes it longer.
SHARE_FOR_KILLS = 0.7
LEAST_GAP_SECONDS = 0.5


def gap_of(seconds: float, kills: int) -> float:
    """Mean seconds between two of so many kills of a study that takes so long undisturbed."""
    return max(LEAST_GAP_SECONDS, SHARE_FOR_KILLS * seconds / kills)


@dataclass(frozen=True)
class Kill:
    """``seconds`` after the study's start a victim of this ``kind`` was killed."""

    seconds: float
    kind: str
    victim: str


@dataclass
class Monkey:
    """Kills so many victims, about ``gap`` seconds apart (exponential, cut at three times that),
    the first no sooner than ``start`` seconds after the study.

    Of the kinds that have a victim just then, it takes one of those that it killed least, so that
    all kinds get their turn however rarely they are there.
    """

    seed: int
    kills: int
    gap: float
    start: float = SECONDS_TO_START
    done: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._started = time.monotonic()
        self._next = self._started + self.start + self._wait()

    def _wait(self) -> float:
        return self.gap * min(self._random.expovariate(1.0), 3.0)

    @property
    def due(self) -> bool:
        return len(self.done) < self.kills and time.monotonic() >= self._next

    @property
    def by_kind(self) -> Counter[str]:
        return Counter(kill.kind for kill in self.done)

    def strike(
        self, victims: Mapping[str, Sequence[Any]], kill: Callable[[str, Any], str | None]
    ) -> Kill | None:
        """Choose a victim and kill it. ``kill`` returns what it was, None if it was gone already:
        the turn is then taken again."""
        kinds = sorted(kind for kind, found in victims.items() if found)
        if not kinds:
            return None
        killed = self.by_kind
        least = min(killed[kind] for kind in kinds)
        kind = self._random.choice([kind for kind in kinds if killed[kind] == least])
        name = kill(kind, self._random.choice(victims[kind]))
        if name is None:
            return None
        now = time.monotonic()
        self._next = now + self._wait()
        self.done.append(Kill(now - self._started, kind, name))
        return self.done[-1]
