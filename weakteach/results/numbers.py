"""How findings and reports write numbers and intervals."""

import math

from weakteach.statistics.estimate import Estimate

DASH, MINUS, PLUS_MINUS = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"
MOST_DECIMALS = 4


def number(value: float | None, decimals: int | None = None) -> str:
    """A number with ``decimals`` decimals or, if None, three significant digits in at most
    MOST_DECIMALS decimals (two digits below 0.001). Integers are written whole; a dash stands for
    a value that is missing or not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    if decimals is None:
        if 0 < abs(value) < 10 ** (1 - MOST_DECIMALS):
            return f"{value:.2g}".replace("-", MINUS)
        decimals = _decimals(value, 3)
    rounded = round(float(value), decimals) + 0.0  # no negative zero
    return f"{rounded:,.{decimals}f}".replace("-", MINUS)


def with_interval(estimate: Estimate) -> tuple[str, str]:
    """The value and its 95% interval as ``[low, high]``; the latter is empty if not known.

    Decimals follow the interval: two significant digits of half its width.
    """
    if not _has_interval(estimate):
        return number(float(estimate.value)), ""
    decimals = _decimals_of(estimate)
    value, low, high = (number(v, decimals) for v in (estimate.value, estimate.low, estimate.high))
    return value, f"[{low}, {high}]"


def with_half(estimate: Estimate) -> str:
    """The value ± half the width of its 95% interval, for narrow places."""
    if not _has_interval(estimate):
        return number(float(estimate.value))
    decimals = _decimals_of(estimate)
    half = (estimate.high - estimate.low) / 2
    return f"{number(estimate.value, decimals)} {PLUS_MINUS}{number(half, decimals)}"


def with_kept(estimate: Estimate) -> str:
    """How many of all prompts the value is of, if some were left out; else an empty string."""
    if not estimate.left_out:
        return ""
    return f"{estimate.prompts:,} of {estimate.prompts + estimate.left_out:,} prompts"


def _has_interval(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def _decimals_of(estimate: Estimate) -> int:
    half = (estimate.high - estimate.low) / 2
    return _decimals(half, 2) if half > 0 else _decimals(estimate.value, 3)


def _decimals(value: float, significant: int) -> int:
    if value == 0:
        return 2
    return min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), MOST_DECIMALS)
