"""A value with its interval, and the interval of a share."""

from dataclasses import KW_ONLY, dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; each of the three is NaN where it is not known.

    ``p`` is the two-sided p-value of a true value of 0 (NaN where nothing is tested). ``seeds`` and
    ``prompts`` count what the value was taken over. ``left_out`` counts the prompts that were left
    out because an outcome that the value is made of is missing there. Unless ``covers_seeds``, the
    interval and p hold for new prompts, but only for these seeds.
    """

    # Files leave out what is not known.
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    _: KW_ONLY
    p: float = float("nan")
    seeds: int = 0
    prompts: int = 0
    covers_seeds: bool = False
    left_out: int = 0


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95% score interval of a share of ``n`` independent trials (Wilson 1927):

        (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n),  p = successes / n

    Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"No share: {successes} of {n}")
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
