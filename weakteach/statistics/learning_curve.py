"""How accuracy grows with the number of labeled pairs, and how many pairs reach a wanted accuracy.

The curve is accuracy(n) = top - gain/√n. The exponent ½ is that of parametric learners; published
curves have exponents from about 0.3 to 1 (Figueroa et al. 2012), but three or four points of a few
hundred pairs cannot tell it, and a fit of all three parameters would follow their noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weakteach.statistics.estimate import CONFIDENCE, Estimate

DRAWS = 4000
# Nothing is said beyond this many times the labels of the largest point.
FARTHEST = 20


@dataclass(frozen=True)
class Reach:
    """The number of labeled pairs at which a teacher reaches the accuracy ``wanted``.

    ``labels`` is the estimate, from ``low`` to ``high`` with 95%; each is None where it lies beyond
    FARTHEST times the labels of the largest point or where the curve never gets there. ``told``
    says whether ``labels`` is one to plan by: it is known, and the curve is shown to rise.
    """

    wanted: float
    labels: float | None
    low: float | None
    high: float | None
    told: bool


@dataclass(frozen=True)
class LearningCurve:
    """A fitted curve: ``labels`` and ``accuracy`` are its points, ``top`` and ``gain`` its
    parameters, the latter with its interval. A gain below 0 says that more labels made the teacher
    worse."""

    labels: tuple[int, ...]
    accuracy: tuple[Estimate, ...]
    top: float
    gain: Estimate
    reach: Reach


def learning_curve(
    labels: Sequence[int], correct: np.ndarray, wanted: float, widened: float = 1.0
) -> LearningCurve:
    """Fit the curve to the accuracies of teachers of ``labels`` [points] labeled pairs.

    ``correct`` [points, groups] holds the outcomes of the same held-out groups of pairs at each
    point, whose mean is the accuracy there (``cross_fit.group_outcomes``). The fit is by least
    squares. Intervals are those of DRAWS draws of the accuracies from their joint Student's
    distribution, with G - 1 degrees of freedom for G groups: its covariance is that over groups,
    times ``widened`` for the training pairs that teachers share (``cross_fit.inflation``). Raises
    ValueError for fewer than two different numbers of labels, fewer than two groups, or a wanted
    accuracy outside of (0, 1).
    """
    sizes, outcomes = np.asarray(labels, float), np.asarray(correct, float)
    if outcomes.ndim != 2 or outcomes.shape[0] != len(sizes) or outcomes.shape[1] < 2:
        raise ValueError(f"No learning curve of {sizes.shape} labels and {outcomes.shape} outcomes")
    if len(np.unique(sizes)) < 2 or not (sizes > 0).all() or not 0 < wanted < 1:
        raise ValueError(f"No learning curve over {list(labels)} labels to an accuracy of {wanted}")
    design = np.stack([np.ones(len(sizes)), -1 / np.sqrt(sizes)], axis=1)
    solve = np.linalg.pinv(design)  # [2, points]
    accuracy = outcomes.mean(axis=1)
    covariance = np.atleast_2d(np.cov(outcomes)) / outcomes.shape[1] * widened
    random, degrees = np.random.default_rng(0), outcomes.shape[1] - 1
    errors = random.multivariate_normal(
        np.zeros(len(sizes)), covariance, DRAWS, method="eigh", check_valid="ignore"
    )
    draws = accuracy + errors * np.sqrt(degrees / random.chisquare(degrees, (DRAWS, 1)))
    top, gain = solve @ accuracy
    tops, gains = solve @ draws.T
    farthest = FARTHEST * float(sizes.max())
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(gains, [tail, 1 - tail])
    needed = np.sort(_needed(tops, gains, wanted))
    fewest, most = needed[int(tail * DRAWS)], needed[int((1 - tail) * DRAWS) - 1]

    def known(number: float) -> float | None:
        return float(number) if number <= farthest else None

    labels_needed = known(_needed(np.array([top]), np.array([gain]), wanted)[0])
    told = labels_needed is not None and bool(low > 0)
    return LearningCurve(
        labels=tuple(int(size) for size in sizes),
        accuracy=tuple(
            Estimate(float(value), float(ends[0]), float(ends[1]), prompts=outcomes.shape[1])
            for value, ends in zip(
                accuracy, np.quantile(draws, [tail, 1 - tail], axis=0).T, strict=True
            )
        ),
        top=float(top),
        gain=Estimate(float(gain), float(low), float(high), prompts=outcomes.shape[1]),
        reach=Reach(wanted, labels_needed, known(fewest), known(most), told),
    )


def _needed(top: np.ndarray, gain: np.ndarray, wanted: float) -> np.ndarray:
    """The n, at least 1, with top - gain/√n = wanted; infinite if a curve never gets there."""
    rises = (top > wanted) & (gain > 0)
    root = np.divide(gain, top - wanted, out=np.full(len(top), np.inf), where=rises)
    # A curve that does not rise, but starts above what is wanted, gets there with one label.
    flat = (gain <= 0) & (top - gain > wanted)
    return np.maximum(np.where(flat, 1.0, np.square(root)), 1.0)
