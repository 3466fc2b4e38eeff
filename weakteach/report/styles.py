"""How names look in the figures of a report, and what the figures' font can draw."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle

from matplotlib.font_manager import findfont, get_font

from weakteach.report.words import one_line
from weakteach.results.findings import Figure, Histogram, MeansFigure

# Inline SVG refers to these by name, so that the page's style sheet can turn them dark.
COLORS = {
    "page": "#ffffff",
    "ink": "#1b1e23",
    "muted": "#59626d",
    "grid": "#dde1e6",
    "c1": "#0067a3",
    "c2": "#c24e00",
    "c3": "#806200",
    "c4": "#00795a",
    "c5": "#9c3f86",
    "c6": "#5d4bb3",
}
PALETTE = ("c1", "c2", "c3", "c4", "c5", "c6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
CHARACTER = 0.072  # inches: the width of an average character of a label
NAME = 32  # characters


@dataclass(frozen=True)
class Style:
    """How one name looks in every figure of a report: it is never told by color alone."""

    color: str
    marker: str
    line: str
    filled: bool

    @property
    def face(self) -> str:
        return self.color if self.filled else COLORS["page"]


def styles_of(figures: Iterable[Figure]) -> dict[str, Style]:
    """A style for each name in the figures; names keep theirs from figure to figure."""
    names: dict[str, None] = {}
    for figure in figures:
        if isinstance(figure, MeansFigure):
            names |= dict.fromkeys(series.name for series in figure.series)
        elif isinstance(figure, Histogram):
            names |= dict.fromkeys(figure.counts)
    looks = zip(names, cycle(PALETTE), cycle(MARKERS), cycle(LINES), count(), strict=False)
    return {
        name: Style(COLORS[color], marker, line, place // len(PALETTE) % 2 == 0)
        for name, color, marker, line, place in looks
    }


def named(text: str) -> str:
    """A name of an axis or in the legend, on two lines if it is long."""
    return "\n".join(textwrap.wrap(one_line(text, 2 * NAME), NAME)[:2]) or " "


@cache
def _characters() -> frozenset[int]:
    """The code points that the font of the figures can draw."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def drawable(text: str) -> str:
    known = _characters()
    return "".join(c if ord(c) in known or c == "\n" else "\N{WHITE SQUARE}" for c in text)
