"""Intervals for shares and for means over seeds."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
# With fewer seeds their spread says next to nothing about that of all seeds.
MIN_SEEDS_FOR_SPREAD = 3


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; the ends are NaN where they are not known.

    ``p`` is two-sided, of a true value of 0 (NaN where nothing is tested). ``seeds`` and
    ``prompts`` count what the value was taken over. Unless ``covers_seeds``, interval and p hold
    for new prompts, but for these seeds alone.
    """

    value: float
    low: float
    high: float
    _: KW_ONLY
    p: float = float("nan")
    seeds: int = 0
    prompts: int = 0
    covers_seeds: bool = False


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95% score interval of a share of ``n`` independent trials (Wilson 1927):

        (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n),  p = successes / n

    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"No share: {successes} of {n}")
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def share_estimate(shares: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Mean over seeds of shares of pairs, with a Wilson interval.

    The interval counts as many pairs as one seed has: seeds share most of their pairs, and the
    same pair seen twice tells little more than seen once.
    """
    n = round(float(np.mean(counts)))
    share = float(np.mean(shares))
    if n == 0:
        return Estimate(share, float("nan"), float("nan"))
    return Estimate(share, *wilson_interval(round(share * n), n))


def mean_interval(values: Sequence[float], ses: Sequence[float]) -> Estimate:
    """Mean over seeds with a 95% interval; ``ses`` are the values' standard errors over prompts.

    All seeds answer the same prompts, so their errors over prompts are correlated by an unknown
    amount. The standard error of the mean over prompts is at most the mean of the seeds' own
    (triangle inequality), which is taken for it; the interval is rather too wide than too narrow.

    From three seeds S on, with s their standard deviation and se the mean of ``ses``,

        mean ± t(df) √(s²/S + se²),  df = (S - 1) ((s²/S + se²) / (s²/S))²

    which holds for new seeds and new prompts (Welch-Satterthwaite; the degrees of freedom of the
    part over prompts are taken as infinite). With one or two seeds, mean ± z se: for new prompts,
    but for these seeds alone.
    """
    if not len(values) or len(values) != len(ses):
        raise ValueError(f"{len(values)} values with {len(ses)} standard errors")
    seeds, mean, variance = len(values), float(np.mean(values)), float(np.mean(ses)) ** 2
    degrees = np.inf
    if seeds >= MIN_SEEDS_FOR_SPREAD:
        between = float(np.var(values, ddof=1)) / seeds
        variance += between
        if between > 0:
            degrees = (seeds - 1) * (variance / between) ** 2
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * float(np.sqrt(variance))
    return Estimate(mean, mean - half, mean + half)


def share_se(share: float, n: float) -> float:
    """Standard error √(p(1 - p)/n) of a share of ``n`` independent trials."""
    return float(np.sqrt(share * (1 - share) / n)) if n > 0 else float("nan")
