"""Does a teacher know what it knows: its probabilities against how often it is right."""

from dataclasses import dataclass

import numpy as np

from weakteach.statistics.crossed import clustered_share, win_rate
from weakteach.statistics.estimate import Estimate


@dataclass(frozen=True)
class CalibrationBin:
    """Labels of like probability, from ``low`` to ``high``; ``probability`` is their mean."""

    low: float
    high: float
    count: int
    probability: float
    accuracy: Estimate


@dataclass(frozen=True)
class Calibration:
    """``ece`` is the mean over labels of |accuracy - probability| of their bin (expected
    calibration error, Naeini et al. 2015). It is above 0 by chance alone: ``ece_by_chance`` is
    what a perfectly calibrated teacher is expected to show with the same bins."""

    bins: tuple[CalibrationBin, ...]
    ece: float
    ece_by_chance: float


def calibration(
    probability: np.ndarray,
    correct: np.ndarray,
    bins: int = 10,
    pairs: np.ndarray | None = None,
) -> Calibration:
    """Reliability table of labels: ``probability`` [n] that a label is right, ``correct`` [n] 0/1.

    A weak label's probability is (1 + confidence)/2 = σ(|margin|). Bins hold about equally many
    labels (equal widths would leave most of them empty: margins are small); equal probabilities
    are never parted, so there may be fewer bins. ``pairs`` [n] names the pair of each label: labels
    of one pair count as one observation in the intervals. Without it all labels are independent.
    By chance, |accuracy - probability| of a bin of m labels is about √(2/π) √(Σ p(1 - p))/m.

    Raises ValueError for no labels, unequal lengths, values outside of [0, 1], or no bins.
    """
    probability = np.asarray(probability, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if probability.ndim != 1 or probability.shape != right.shape or not len(right) or bins < 1:
        raise ValueError(f"No calibration of {probability.shape} by {right.shape} in {bins} bins")
    if not ((probability >= 0) & (probability <= 1)).all() or not np.isin(right, (0, 1)).all():
        raise ValueError("Calibration is of probabilities in [0, 1] and correct as 0 or 1")
    inner = np.unique(np.quantile(probability, np.arange(1, bins) / bins))
    place = np.searchsorted(inner, probability, side="right")
    made, chance = [], 0.0
    for number in np.unique(place):
        inside = place == number
        p, hits, count = probability[inside], int(right[inside].sum()), int(inside.sum())
        accuracy = (
            win_rate(hits, 0, count - hits)
            if pairs is None
            else clustered_share(right[inside], pairs[inside])
        )
        made.append(
            CalibrationBin(float(p.min()), float(p.max()), count, float(p.mean()), accuracy)
        )
        chance += np.sqrt(2 / np.pi * (p * (1 - p)).sum())
    gaps = [one.count * abs(one.accuracy.value - one.probability) for one in made]
    n = len(right)
    return Calibration(tuple(made), ece=sum(gaps) / n, ece_by_chance=float(chance / n))
