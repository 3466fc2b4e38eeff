"""How a report writes numbers, intervals, times, and texts that it must not trust."""

import math
import re
import time
import unicodedata
from collections.abc import Sequence

from weakteach.results.findings import Value
from weakteach.statistics.estimate import Estimate

DASH, MINUS, PLUS_MINUS = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"
MOST_DECIMALS, LONGEST_NAME = 4, 160
SYMBOLS = {
    "supported": "\N{CHECK MARK}",
    "contradicted": "\N{MULTIPLICATION X}",
    "not decided": "?",
}
# What reverses or nests the direction of text.
DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# The least that could need a change, so that other text is not walked through.
SUSPECTS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{DIRECTIONS}]")


def number(value: float | None, decimals: int | None = None) -> str:
    """A number with so many decimals, or with three significant digits; integers whole; a dash
    for what is missing or not finite."""
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


def probability(p: float | None) -> str:
    """A p value as ``< 0.001`` or to three decimals."""
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)


def in_short(value: Value) -> str:
    """A cell of a table on one line."""
    if isinstance(value, Estimate):
        return with_half(value)
    return value if isinstance(value, str) else number(value)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def symbol(verdict: str) -> str:
    return SYMBOLS.get(verdict, "\N{MIDDLE DOT}")


def is_text(column: Sequence[Value]) -> bool:
    """Whether the cells of a column are words, which stand at the left."""
    return any(isinstance(value, str) for value in column)


def brief(text: str) -> str:
    """A title or a name, which stands on one line and is repeated."""
    return one_line(text, LONGEST_NAME)


def legible(text: str) -> str:
    """The text with its control characters, lone surrogates and changes of direction spelled out
    as ``⟨U+202E⟩``, so that nothing is shown otherwise than it is stored."""
    if not SUSPECTS.search(text):
        return text
    return "".join(map(_legible, text.replace("\r\n", "\n")))


def one_line(text: str, longest: int) -> str:
    """The text on one line, cut after ``longest`` characters."""
    line = " ".join(legible(text[: 4 * longest]).split())
    return line if len(line) <= longest else line[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _legible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs") or character in DIRECTIONS
    return f"⟨U+{ord(character):04X}⟩" if hidden and character not in "\n\t" else character


def _has_interval(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))


def _decimals_of(estimate: Estimate) -> int:
    half = (estimate.high - estimate.low) / 2
    return _decimals(half, 2) if half > 0 else _decimals(estimate.value, 3)


def _decimals(value: float, significant: int) -> int:
    if value == 0:
        return 2
    return min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), MOST_DECIMALS)
