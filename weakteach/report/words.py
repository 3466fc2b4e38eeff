"""How a report writes numbers, intervals, times, and texts that it must not trust."""

import re
import time
import unicodedata
from collections.abc import Sequence

from weakteach.results.findings import DECIDED, FAILED, TOLD, Findings, TableOf, Value
from weakteach.results.numbers import number, with_half, with_kept
from weakteach.statistics.estimate import Estimate

LONGEST_NAME = 160
SYMBOLS = {
    "supported": "\N{CHECK MARK}",
    "contradicted": "\N{MULTIPLICATION X}",
    "better": "\N{BLACK UP-POINTING TRIANGLE}",
    "failed": "!",
    "worse": "\N{BLACK DOWN-POINTING TRIANGLE}",
    "not decided": "?",
}
# Characters that reverse or nest the direction of text.
DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Characters that may need a change: text without any is not looked at one by one.
SUSPECTS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{DIRECTIONS}]")


def probability(p: float | None) -> str:
    """A p value as ``< 0.001`` or to three decimals."""
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)


def in_short(value: Value) -> str:
    """A cell of a table on one line."""
    if isinstance(value, Estimate):
        return ", ".join(filter(None, (with_half(value), with_kept(value))))
    return value if isinstance(value, str) else number(value)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def symbol(verdict: str) -> str:
    return SYMBOLS.get(verdict, "\N{MIDDLE DOT}")


def tally(findings: Findings) -> str:
    """How many claims and comparisons are decided, as a sentence; empty where there are none."""
    claims = [one.verdict for one in findings.claims]
    answered = [v for one in findings.answers if (v := one.verdict) not in (TOLD, FAILED)]
    decided, of_claims = (sum(v in DECIDED for v in found) for found in (answered, claims))
    counts = {
        "claim": (of_claims, len(claims)),
        "comparison": (decided - of_claims, len(answered) - len(claims)),
    }
    said = [f"{n} of {m} {name}{'s' * (m > 1)}" for name, (n, m) in counts.items() if m]
    return f"{' and '.join(said)} decided." if said else ""


def is_text(column: Sequence[Value]) -> bool:
    """Whether a column has words in it, so that it is aligned to the left."""
    return any(isinstance(value, str) for value in column)


def told_once(table: TableOf) -> TableOf:
    """The table without the text columns that are the same in every row; its note states them."""
    if len(table.rows) < 2:
        return table
    same = [
        n
        for n, column in enumerate(zip(*table.rows, strict=True))
        if isinstance(column[0], str) and len(set(column)) == 1
    ]
    if not same or len(same) > len(table.columns) - 2:
        return table
    told = "; ".join(f"{table.columns[n]}: {table.rows[0][n]}" for n in same)
    kept = [n for n in range(len(table.columns)) if n not in same]
    return TableOf(
        table.title,
        tuple(table.columns[n] for n in kept),
        tuple(tuple(row[n] for n in kept) for row in table.rows),
        f"In all rows {told}. {table.note}".strip(),
    )


def brief(text: str) -> str:
    """A title or a name on one line, cut after LONGEST_NAME characters."""
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
