"""Does a teacher know what it knows? Its probabilities are compared with how often it is right,
before and after they are corrected by one number, a temperature."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from weakteach.statistics.cross_fit import clustered_share, design_effect
from weakteach.statistics.estimate import Estimate

# Ends of the search for a temperature. At the upper one every probability is almost 1/2.
COLDEST, HOTTEST = 1e-3, 1e3


@dataclass(frozen=True)
class CalibrationBin:
    """Labels of similar probability, from ``low`` to ``high``; ``probability`` is the mean."""

    low: float
    high: float
    count: int
    probability: float
    accuracy: Estimate


@dataclass(frozen=True)
class Calibration:
    """How well probabilities of labels fit their outcomes. ``ece`` is the mean over labels of
    |accuracy - probability| of their bin (expected calibration error, Naeini et al. 2015). Chance
    alone makes it larger than 0: ``ece_by_chance`` is what a perfectly calibrated teacher is
    expected to show with the same bins. ``brier`` is the mean squared difference of probability and
    outcome (Brier 1950)."""

    bins: tuple[CalibrationBin, ...]
    ece: float
    ece_by_chance: float
    brier: float


def calibration(
    probability: np.ndarray,
    correct: np.ndarray,
    bins: int = 10,
    groups: np.ndarray | None = None,
    widened: float = 1.0,
) -> Calibration:
    """Reliability table of labels: the ``probability`` that a label is right, ``correct`` 0 or 1,
    both [n] or, for labels of the same n pairs in several rounds, [repeats, n].

    A weak label's probability is (1 + confidence)/2 = σ(|margin|), or ``label_probability`` of its
    margin and a temperature. Bins hold about equally many labels (equal widths would leave most of
    them empty: margins are small); equal probabilities share a bin, so there may be fewer
    bins. By chance, |accuracy - probability| of a bin of m labels is about √(2/π) √(Σ p(1 - p))/m.

    ``groups`` [n] numbers the groups of pairs that belong together: intervals and ``ece_by_chance``
    are then those of the number of independent labels that they count for. Without it all pairs are
    taken as independent. ``widened`` multiplies the variance of the intervals (both as in
    ``cross_fit.clustered_share``).

    Raises ValueError for no labels, unequal lengths, values outside of [0, 1], or no bins.
    """
    probability, right = _checked(probability, correct, bins)
    place = _bin_of(probability, bins)
    groups = np.arange(right.shape[-1]) if groups is None else groups
    of_label = np.broadcast_to(groups, right.shape)
    made, chance = [], 0.0
    for number in np.unique(place):
        inside = place == number
        p = probability[inside]
        accuracy = clustered_share(right, groups, widened, where=inside)
        effect = design_effect(right[inside] - p, of_label[inside])
        made.append(
            CalibrationBin(
                float(p.min()), float(p.max()), int(inside.sum()), float(p.mean()), accuracy
            )
        )
        chance += np.sqrt(2 / np.pi * effect * (p * (1 - p)).sum())
    return Calibration(
        tuple(made),
        ece=float(error_parts(probability, right, bins).mean()),
        ece_by_chance=float(chance / right.size),
        brier=float(np.square(probability - right).mean()),
    )


def error_parts(probability: np.ndarray, correct: np.ndarray, bins: int = 10) -> np.ndarray:
    """What each label adds to the calibration error: values, of the shape of the arguments, whose
    mean is the ECE.

    A label's value is ``correct`` - ``probability``, times the sign of the sum of these differences
    over the label's bin. To first order, with bins and signs held fixed, the ECE varies with the
    labels as the mean of the values does. Arguments are those of ``calibration``; raises ValueError
    as it does.
    """
    probability, right = _checked(probability, correct, bins)
    place, excess = _bin_of(probability, bins), right - probability
    return np.sign(np.bincount(place.ravel(), excess.ravel()))[place] * excess


def label_probability(margin: np.ndarray, temperature: float) -> np.ndarray:
    """Probability in [½, 1) that labels of these margins [n] are right: σ(|margin| / temperature).

    With the temperature 1 it is what the teacher itself claims, (1 + confidence)/2.
    """
    return special.expit(np.abs(margin) / temperature)


def fit_temperature(margin: np.ndarray, correct: np.ndarray) -> float:
    """The temperature T with which σ(|margin|/T) fits best how often labels are right (Guo et al.
    2017), by negative log-likelihood. Being one number, it leaves the order of labels as it is.

    ``margin`` [n], ``correct`` [n] 0/1. It is HOTTEST if labels, weighted by |margin|, are not
    more often right than wrong, COLDEST if every label is right. Labels of margin 0 do not count.
    Raises ValueError for no labels, unequal lengths or margins that are not finite.
    """
    size, right = np.abs(np.asarray(margin, float)), np.asarray(correct, float)
    if size.ndim != 1 or size.shape != right.shape or not len(size) or not np.isfinite(size).all():
        raise ValueError(f"No temperature of margins {size.shape} by {right.shape}")
    signed = np.where(right > 0, size, -size)

    def slope(log_temperature: float) -> float:
        """The log-likelihood's slope in 1/T: Σ signed·σ(-signed/T), which falls as 1/T grows."""
        return float((signed * special.expit(-signed / np.exp(log_temperature))).sum())

    cold, hot = np.log(COLDEST), np.log(HOTTEST)
    if slope(hot) <= 0:
        return HOTTEST
    if slope(cold) >= 0:
        return COLDEST
    return float(np.exp(optimize.brentq(slope, cold, hot)))


def cross_fitted_probability(
    margin: np.ndarray, correct: np.ndarray, part: np.ndarray
) -> np.ndarray:
    """Probabilities [n] of labels under temperatures that were fitted on other labels.

    ``part`` [n] numbers the parts that labels are cut into, all labels of one prompt in one part.
    The temperature of a part's labels is fitted on all other parts: no label is judged by a
    temperature that was fitted on it. Raises ValueError for fewer than two parts, and as
    ``fit_temperature`` does.
    """
    parts = np.unique(part)
    if len(parts) < 2:
        raise ValueError("Cross-fitting a temperature needs at least two parts of the labels")
    fitted = np.empty(len(margin))
    for number in parts:
        inside = part == number
        temperature = fit_temperature(margin[~inside], correct[~inside])
        fitted[inside] = label_probability(margin[inside], temperature)
    return fitted


def _checked(
    probability: np.ndarray, correct: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    probability = np.asarray(probability, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if not right.size or right.ndim > 2 or probability.shape != right.shape or bins < 1:
        raise ValueError(f"No calibration of {probability.shape} by {right.shape} in {bins} bins")
    if not ((probability >= 0) & (probability <= 1)).all() or not np.isin(right, (0, 1)).all():
        raise ValueError("Calibration is of probabilities in [0, 1] and correct as 0 or 1")
    return probability, right


def _bin_of(probability: np.ndarray, bins: int) -> np.ndarray:
    inner = np.unique(np.quantile(probability, np.arange(1, bins) / bins))
    return np.searchsorted(inner, probability, side="right")
