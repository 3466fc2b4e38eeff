"""How many human labels a thousand weak labels are worth."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from weakteach.statistics.crossed import mean
from weakteach.statistics.estimate import Estimate

# By which factor the line is followed beyond the numbers of human labels that were tried.
FARTHEST = 4.0


@dataclass(frozen=True)
class Exchange:
    """``worth`` is the number of human labels that a thousand weak labels are worth (below 0 if
    they did harm), ``low`` and ``high`` are the ends of its 95% interval. Each of the three is None
    if the human labels that were tried cannot tell it; ``told`` says that all three are known."""

    weak_labels: int
    worth: float | None
    low: float | None
    high: float | None
    told: bool


def exchange_rate(
    human: Mapping[int, np.ndarray],
    both: np.ndarray,
    human_labels: int,
    weak_labels: int,
) -> Exchange:
    """What weak labels added to human ones are worth.

    ``human`` holds, by number of human labels, the outcomes [seeds, prompts] of students of these
    labels alone; ``both`` holds those of students of ``human_labels`` human and ``weak_labels``
    weak labels. Seeds and prompts are the same in all. The outcome of n human labels is taken as a
    line a + b·log n (least squares over the numbers tried); the worth w solves
    a + b·log(human_labels + w) = mean of ``both``.

    The interval is found by inverting a test (Fieller 1954): it holds each w for which the mean of
    ``both`` minus the line at human_labels + w is not told from 0 by ``crossed.mean``, an interval
    for new seeds and prompts. So it is valid although a ratio of two noisy numbers has no variance,
    and it is open if the line is not shown to rise. Numbers of labels are searched from the
    smallest tried / FARTHEST to the largest tried · FARTHEST.

    Raises ValueError for fewer than two numbers of human labels, counts below 1, outcomes of
    different shapes, and as ``crossed.components`` does.
    """
    numbers = sorted(human)
    if len(numbers) < 2 or min(*numbers, human_labels, weak_labels) < 1:
        raise ValueError("An exchange rate needs two numbers of human labels, and weak ones")
    if any(human[n].shape != both.shape for n in numbers):
        raise ValueError("An exchange rate is of the same seeds and prompts throughout")
    logs = np.log(numbers)
    solve = np.linalg.pinv(np.stack([np.ones(len(logs)), logs], axis=1))  # [2, numbers]
    cells = np.stack([human[n] for n in numbers])
    base, slope = np.tensordot(solve, cells, 1)  # of each cell; both are linear in the outcomes

    def over(log_labels: float) -> Estimate:
        return mean(both - base - slope * log_labels)

    # If the line rises, ``over`` falls with the number of labels. Its low end falls through 0 at
    # the low end of the worth, its high end at the high end of the worth.
    ends = logs[0] - math.log(FARTHEST), logs[-1] + math.log(FARTHEST)
    value = low = high = None
    if slope.mean() > 0:
        value = _crossing(lambda at: over(at).value, *ends)
    if mean(slope).low > 0:
        low = _crossing(lambda at: over(at).low, *ends)
        high = _crossing(lambda at: over(at).high, *ends)

    def worth(at: float | None) -> float | None:
        return None if at is None else (math.exp(at) - human_labels) * 1000 / weak_labels

    worths = worth(value), worth(low), worth(high)
    return Exchange(weak_labels, *worths, told=None not in worths)


def _crossing(falling: Callable[[float], float], left: float, right: float) -> float | None:
    """Where the function falls through 0, None if that is not between the ends."""
    if not falling(left) > 0 > falling(right):
        return None
    return float(optimize.brentq(falling, left, right))
