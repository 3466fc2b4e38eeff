"""Estimates from outcomes of crossed seeds and prompts, with intervals for new seeds and prompts.

A matrix [seeds, prompts] holds one outcome per seed and test prompt; every seed answers the same
prompts. Outcomes are taken as mean + seed effect + prompt effect + residual, all independent.

The interval of a mean is Banerjee's (Sankhyā A 23, 1961): each part of its variance has a Student
quantile of its own degrees of freedom,

    mean ± √(t²(S - 1)·MS_seed/SP + t²(P - 1)·max(0, MS_prompt - MS_residual)/SP)

with the mean squares of the two-way analysis of variance. It is never liberal: in simulations with
normal effects it contained the true mean in 95 to 98% of cases (up to 99% with 2 seeds), whatever
the shares of seeds and prompts in the variance. With 3 seeds that differ, a bootstrap over seeds
and prompts contained it in 80 to 87% (it draws from too few seeds), and an interval with
Satterthwaite's degrees of freedom in 92 to 98%, but with 2 seeds in as little as 88% (they are
estimated from the same few seeds). For many prompts and seeds all of these agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats
from statsmodels.stats.proportion import proportion_confint

from weakteach.statistics.estimate import CONFIDENCE, Estimate

# Smaller p-values are given as this one.
SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Components:
    """Parts of the variance of a matrix [seeds, prompts].

    ``seed_variance``, ``prompt_variance`` and ``residual_variance`` are the variances of the
    effects, estimated from the mean squares, or 0 if that estimate is negative. ``from_seeds`` and
    ``from_prompts`` are the two parts of the squared standard error of the mean in the interval of
    this module. One seed tells nothing about others: then ``seed_variance`` is NaN, ``from_seeds``
    is 0, and the residual counts in ``prompt_variance``.
    """

    mean: float
    seeds: int
    prompts: int
    seed_variance: float
    prompt_variance: float
    residual_variance: float
    from_seeds: float
    from_prompts: float

    @property
    def variance(self) -> float:
        """Of a single cell."""
        of_seeds = 0.0 if math.isnan(self.seed_variance) else self.seed_variance
        return of_seeds + self.prompt_variance + self.residual_variance

    def half_width(self, tail: float) -> float:
        """Half the width of the interval that leaves out a probability ``tail`` on either side."""
        return math.sqrt(
            squared_quantile(self.seeds, tail) * self.from_seeds
            + squared_quantile(self.prompts, tail) * self.from_prompts
        )


def squared_quantile(n: int, tail: float) -> float:
    """Square of Student's quantile with ``n`` - 1 degrees of freedom; 0 for a single value."""
    return float(special.stdtrit(n - 1, tail)) ** 2 if n > 1 else 0.0


def components(matrix: np.ndarray) -> Components:
    """Parts of the variance of ``matrix`` [seeds, prompts].

    Raises ValueError unless it has at least one seed and two prompts and every cell is finite.
    """
    cells = _checked(matrix)
    seeds, prompts = cells.shape
    center, by_seed, by_prompt = cells.mean(), cells.mean(axis=1), cells.mean(axis=0)
    prompt_square = seeds * by_prompt.var(ddof=1)
    if seeds == 1:
        parts = (math.nan, float(prompt_square), 0.0, 0.0, float(prompt_square / prompts))
        return Components(float(center), seeds, prompts, *parts)
    seed_square = prompts * by_seed.var(ddof=1)
    residuals = cells - by_seed[:, None] - by_prompt[None, :] + center
    residual_square = np.square(residuals).sum() / ((seeds - 1) * (prompts - 1))
    prompt_excess = max(0.0, float(prompt_square - residual_square))
    return Components(
        mean=float(center),
        seeds=seeds,
        prompts=prompts,
        seed_variance=max(0.0, float(seed_square - residual_square)) / prompts,
        prompt_variance=prompt_excess / seeds,
        residual_variance=float(residual_square),
        from_seeds=float(seed_square) / cells.size,
        from_prompts=prompt_excess / cells.size,
    )


def mean(matrix: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of ``matrix`` [seeds, prompts] with its interval at ``confidence``, and the p-value of a
    true mean of 0.

    The p-value is the probability that the widest interval without 0 leaves out, so p < 0.05
    exactly when the 95% interval leaves out 0. To pool arms of the same seeds and prompts, average
    their matrices first. Raises ValueError as ``components`` does.
    """
    parts = components(matrix)
    half = parts.half_width((1 - confidence) / 2)
    return Estimate(
        value=parts.mean,
        low=parts.mean - half,
        high=parts.mean + half,
        p=_p_value(parts),
        seeds=parts.seeds,
        prompts=parts.prompts,
        covers_seeds=parts.seeds > 1,
    )


def paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b [seeds, prompts], in float64. Raises ValueError unless they are of one shape."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"Not paired: [seeds, prompts] of {a.shape} and {b.shape}")
    return a - b


def share_of(parts: Components) -> Estimate:
    """A mean of shares with Wilson's interval, which stays within 0 and 1.

    The interval is that of n independent trials, as many as have the half-width h of ``mean``'s
    interval: n = z² p(1 - p)/h², at most as many as independent cells would be worth. A cell of 0
    or 1 is worth one trial, and a cell that is itself a mean more. If all outcomes are 0 or all are
    1, they count as one trial per prompt. Raises ValueError for a mean outside of [0, 1].
    """
    # The mean of pseudo-values may miss 0 or 1 by the rounding of a sum.
    p, half = round(parts.mean, 12), parts.half_width((1 - CONFIDENCE) / 2)
    if not 0 <= p <= 1:
        raise ValueError(f"A share cannot be {p}")
    trials: float = parts.prompts
    if 0 < p < 1:
        z = stats.norm.isf((1 - CONFIDENCE) / 2)
        cells = parts.seeds * parts.prompts
        worth = p * (1 - p) / parts.variance if parts.variance > 0 else 1.0
        most = cells * max(1.0, worth)
        trials = min(most, z**2 * p * (1 - p) / half**2) if half > 0 else most
        p = parts.mean
    low, high = _wilson(p * trials, trials)
    return Estimate(
        p, low, high, seeds=parts.seeds, prompts=parts.prompts, covers_seeds=parts.seeds > 1
    )


def win_rate(wins: int, ties: int, losses: int) -> Estimate:
    """(wins + ties/2) / n of n independent comparisons, with Wilson's interval.

    A tie is half a win and half a loss. It varies less than either, so the interval is rather too
    wide with ties. Raises ValueError for a negative count or no comparison at all.
    """
    n = wins + ties + losses
    if min(wins, ties, losses) < 0 or n == 0:
        raise ValueError(f"No comparisons: {wins} wins, {ties} ties, {losses} losses")
    won = wins + ties / 2
    return Estimate(won / n, *_wilson(won, n), prompts=n)


def r_squared(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Squared correlation of ``x`` [n] and ``y`` [n], with the p-value of no correlation.

    The ends are those of Fisher's interval of r, squared; if that contains 0, the low end is 0
    and the high end the larger square. The n points are taken as independent: average over seeds
    first. Raises ValueError unless there are at least 4 finite points and neither is constant.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 4:
        raise ValueError(f"No correlation of {x.shape} with {y.shape}: at least 4 points of both")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("No correlation: a value is not finite")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError("No correlation: all values are the same")
    found = stats.pearsonr(x, y)
    ends = found.confidence_interval(CONFIDENCE)
    low, high = sorted((float(ends.low) ** 2, float(ends.high) ** 2))
    if ends.low <= 0 <= ends.high:
        low = 0.0
    return Estimate(float(found.statistic) ** 2, low, high, p=float(found.pvalue), prompts=len(x))


def holm(p_values: Sequence[float], size: int | None = None) -> np.ndarray:
    """The p-values [n] of a family, adjusted after Holm (1979), in the order given. ``size``, by
    default n, also counts the members of the family that have no p-value yet, as if it were 1.

    Raises ValueError for one outside of [0, 1] or NaN, or a smaller ``size``.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"No p-values: {p.tolist()}")
    size = len(p) if size is None else size
    if size < len(p):
        raise ValueError(f"{len(p)} p-values of a family of {size}")
    # The same as statsmodels' multipletests, which spends a quarter of a second on a gc.collect().
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate((size - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _p_value(parts: Components) -> float:
    distance = abs(parts.mean)
    if distance == 0:
        return 1.0
    if parts.half_width(SMALLEST_P / 2) <= distance:
        return SMALLEST_P

    def excess(log_tail: float) -> float:
        return parts.half_width(math.exp(log_tail)) - distance

    log_tail = optimize.brentq(excess, math.log(SMALLEST_P / 2), math.log(0.5), xtol=1e-10)
    return 2 * math.exp(float(log_tail))


def _wilson(successes: float, trials: float) -> tuple[float, float]:
    low, high = proportion_confint(successes, trials, alpha=1 - CONFIDENCE, method="wilson")
    return float(low), float(high)


def _checked(matrix: np.ndarray) -> np.ndarray:
    cells = np.asarray(matrix, dtype=np.float64)
    if cells.ndim != 2 or cells.shape[0] < 1 or cells.shape[1] < 2:
        raise ValueError(f"Outcomes of shape {cells.shape}, not of [seeds, at least 2 prompts]")
    if not np.isfinite(cells).all():
        seed, prompt = np.argwhere(~np.isfinite(cells))[0]
        value = cells[seed, prompt]
        raise ValueError(f"The outcome of seed row {seed} at prompt column {prompt} is {value}")
    return cells
