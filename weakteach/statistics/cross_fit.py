"""Shares over labeled pairs that are held out in turn, with honest intervals.

n labeled pairs are cut into K folds, R times anew; the pairs of each fold are judged by a teacher
that was trained on the K - 1 other folds. So each pair is judged R times, never by a teacher that
saw it. But the teachers share most of their training pairs, so their outcomes are not independent,
and no unbiased estimator of the variance exists (Bengio & Grandvalet, JMLR 5, 2004). Nadeau &
Bengio (Machine Learning 52, 2003) correct the variance of the mean of J = K·R tests for the overlap
by (1/J + n_test/n_train)·S², with n_test/n_train = 1/(K - 1) for repeated K-fold cross-validation
(Bouckaert & Frank 2004). S² is the variance of a fold's share, p(1 - p)K/n for K/n pairs:

    variance = p(1 - p)/n · (1/R + K/(K - 1))

which is the variance of n / (1/R + K/(K - 1)) independent pairs; Wilson's interval of that many is
taken. If S² is estimated from the J shares themselves, as published, K·R - 1 = 4 degrees of freedom
make the interval of 60 pairs twice as wide and its coverage no better. In simulations with a linear
learner on 60 to 300 pairs, the interval contained the accuracy of a teacher trained on all of them
in 94 to 97% of cases, also for accuracies at chance; an interval that takes pairs as independent
contained it in 85 to 92%.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from weakteach.statistics.estimate import CONFIDENCE, Estimate


def inflation(folds: int, repeats: int) -> float:
    """1/R + K/(K - 1): the factor by which shared training pairs increase a variance over pairs.

    Raises ValueError for fewer than two folds or no repeat.
    """
    if folds < 2 or repeats < 1:
        raise ValueError(f"No cross-fitting in {folds} folds, {repeats} times")
    return 1 / repeats + folds / (folds - 1)


def clustered_share(
    values: np.ndarray,
    groups: np.ndarray,
    widened: float = 1.0,
    level: float = CONFIDENCE,
    where: np.ndarray | None = None,
) -> Estimate:
    """Mean of ``values`` in [0, 1] with Wilson's interval at ``level``.

    The values are of the same n pairs, [n] or, in several rounds, [repeats, n]; of these cells, the
    mean is over those that are true in ``where``, of the same shape, if that is given. A cell
    counts as 1/``repeats`` of a pair. ``groups`` [n] numbers the groups of pairs that belong
    together (pairs of one prompt): the pairs count as fewer if values are alike within groups
    (Kish's design effect), never as more. ``widened`` multiplies the variance: see ``inflation``.
    Raises ValueError for no values, unequal lengths or values outside of [0, 1].
    """
    values, groups = np.asarray(values, float), np.asarray(groups)
    inside = np.atleast_2d(np.ones(values.shape, bool) if where is None else where)
    if values.ndim not in (1, 2) or values.shape[-1:] != groups.shape or not inside.any():
        raise ValueError(f"No share of values {values.shape} in groups {groups.shape}")
    values = np.atleast_2d(values)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("A share is of values between 0 and 1")
    cells = inside.sum(axis=0)
    known = cells > 0
    of_pair = (values * inside).sum(axis=0)[known] / cells[known]
    p, pairs = float(values[inside].mean()), cells.sum() / len(values)
    effect = design_effect(of_pair, groups[known], level)
    low, high = share_interval(p, pairs / (widened * effect), level)
    return Estimate(p, low, high, prompts=round(pairs))


def share_error(values: np.ndarray, groups: np.ndarray) -> float:
    """The standard error of the mean of ``values`` [n], each 0 or 1 and of one pair, whose
    ``groups`` [n] are those of ``clustered_share``. It is NaN for no values."""
    if not len(values):
        return float("nan")
    p = float(np.mean(values))
    effect = design_effect(np.asarray(values, float), groups)
    return float(np.sqrt(p * (1 - p) / len(values) * effect))


def share_interval(p: float, trials: float, level: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share ``p`` of independent ``trials``, a whole number of them or not.

    Raises ValueError for a share outside of [0, 1] or no trials.
    """
    if not 0 <= p <= 1 or not trials > 0:
        raise ValueError(f"No share: {p} of {trials}")
    z = float(stats.norm.isf((1 - level) / 2))
    center, spread = p + z * z / (2 * trials), p * (1 - p) / trials + z * z / (4 * trials**2)
    half, scale = z * np.sqrt(spread), 1 + z * z / trials
    return max(0.0, float((center - half) / scale)), min(1.0, float((center + half) / scale))


def design_effect(values: np.ndarray, groups: np.ndarray, level: float | None = None) -> float:
    """The variance of the mean divided by that of as many independent pairs; at least 1.

    It is the ratio of the variance clustered by group to the unclustered one of the same values.
    From G groups that is too small, so it is multiplied by G/(G - 1) and, for an interval at
    ``level`` with a normal quantile z, by (t/z)², with Student's t of G - 1 degrees of freedom; but
    by no more than would make each group, of n pairs, count as one pair: Σn²/Σn. If all values are
    the same, or all are of one group, the ratio says nothing: a group counts as one pair.
    """
    _, group = np.unique(groups, return_inverse=True)
    deviation, sizes = values - values.mean(), np.bincount(group)
    total, count = np.square(deviation).sum(), len(sizes)
    if total == 0 or count < 2:
        return len(values) / float(count)
    found = float(np.square(np.bincount(group, deviation)).sum() / total)
    few = count / (count - 1)
    if level is not None:
        tail = (1 - level) / 2
        few *= float(stats.t.isf(tail, count - 1) / stats.norm.isf(tail)) ** 2
    one_each = float(np.square(sizes).sum() / len(values))
    return max(1.0, found, min(found * few, one_each))


def group_outcomes(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted groups [g] among ``groups`` [n], and an outcome of each [g] from the ``values``
    [n], one per pair.

    A group of n pairs whose values sum to s has the outcome m + (s - n m) G/N, where m is the mean
    over all N pairs, of G groups. So the mean over groups is that over pairs, and its variance that
    of a ratio estimate under cluster sampling (Cochran 1977, §9A.1); where each group has one pair,
    its outcome is that pair's.
    """
    names, place = np.unique(groups, return_inverse=True)
    values = np.asarray(values, float)
    mean = values.mean() if len(values) else 0.0
    above = np.bincount(place, values - mean, minlength=len(names))
    return names, mean + above * (len(names) / max(len(values), 1))


def clustered_mean(values: np.ndarray, groups: np.ndarray, widened: float = 1.0) -> Estimate:
    """Mean of ``values`` [n], one per pair, with a Student interval clustered by group.

    Raises ValueError for fewer than two values or unequal lengths.
    """
    values, groups = np.asarray(values, float), np.asarray(groups)
    if values.ndim != 1 or values.shape != groups.shape or len(values) < 2:
        raise ValueError(f"No mean of values {values.shape} in groups {groups.shape}")
    center, (_, group) = float(values.mean()), np.unique(groups, return_inverse=True)
    sums = np.bincount(group, values - center)
    degrees = max(len(sums) - 1, 1)
    alone = values.var(ddof=1) * len(values)
    # All pairs of one group count as one pair.
    clustered = (
        np.square(sums).sum() * len(sums) / degrees if len(sums) > 1 else alone * len(values)
    )
    error = float(np.sqrt(max(alone, clustered) * widened)) / len(values)
    half = float(stats.t.isf((1 - CONFIDENCE) / 2, degrees)) * error
    p = 2 * float(stats.t.sf(abs(center) / error, degrees)) if error else float("nan")
    return Estimate(center, center - half, center + half, p=p, prompts=len(values))


def kappa(
    first: Sequence[int] | np.ndarray,
    second: Sequence[int] | np.ndarray,
    groups: np.ndarray | None = None,
    widened: float = 1.0,
) -> Estimate:
    """Cohen's κ of two annotators' choices with its 95% interval; see ``kappa_and_error``."""
    value, error = _kappa(first, second, groups, widened, CONFIDENCE)
    half = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * error
    ends = np.clip([value - half, value + half], -1, 1).tolist()
    return Estimate(value, *ends, prompts=np.shape(first)[-1])


def kappa_and_error(
    first: Sequence[int] | np.ndarray,
    second: Sequence[int] | np.ndarray,
    groups: np.ndarray | None = None,
    widened: float = 1.0,
) -> tuple[float, float]:
    """Cohen's κ = (p - e)/(1 - e) of two annotators' choices, 1 or 2, and its standard error. Both
    are NaN where both always make the same one choice.

    The choices are of the same n pairs, [n] or, in several rounds, [repeats, n]. p is the share of
    equal choices, a and b are the shares in which the annotators choose the first response, and
    e = ab + (1 - a)(1 - b) is the share of equal choices expected if they chose independently. To
    first order, κ varies as does the mean of

        ((alike - p)(1 - e) - (1 - p)((2b - 1)(x - a) + (2a - 1)(y - b)))/(1 - e)²

    where ``alike`` is 1 for equal choices, and x and y are 1 if the one and the other annotator
    chose the first response. With independent pairs that gives the variance of Fleiss, Cohen &
    Everitt (1969). ``groups`` [n] and ``widened`` are those of ``clustered_share``; several rounds
    do not count as more pairs. Raises ValueError for no pairs, unequal shapes or other choices.
    """
    return _kappa(first, second, groups, widened, None)


def _kappa(
    first: Sequence[int] | np.ndarray,
    second: Sequence[int] | np.ndarray,
    groups: np.ndarray | None,
    widened: float,
    level: float | None,
) -> tuple[float, float]:
    """κ and its standard error, or what takes its place in an interval at ``level`` with a normal
    quantile."""
    one, other = np.asarray(first), np.asarray(second)
    if one.ndim not in (1, 2) or one.shape != other.shape or not one.size:
        raise ValueError(f"No agreement of choices {one.shape} and {other.shape}")
    if not (np.isin(one, (1, 2)).all() and np.isin(other, (1, 2)).all()):
        raise ValueError("Choices are 1 or 2")
    x, y, alike = np.atleast_2d(one == 1), np.atleast_2d(other == 1), np.atleast_2d(one == other)
    a, b, p = float(x.mean()), float(y.mean()), float(alike.mean())
    e = a * b + (1 - a) * (1 - b)
    if e == 1:
        return float("nan"), float("nan")
    by_chance = (2 * b - 1) * (x - a) + (2 * a - 1) * (y - b)
    varies = ((alike - p) * (1 - e) - (1 - p) * by_chance) / (1 - e) ** 2
    pairs = varies.shape[1]
    groups = np.arange(pairs) if groups is None else groups
    effect = design_effect(varies.mean(axis=0), groups, level)
    error = np.sqrt(np.square(varies).mean() / pairs * effect * widened)
    return (p - e) / (1 - e), float(error)
