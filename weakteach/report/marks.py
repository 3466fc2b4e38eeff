"""The marks of comparisons: means with their intervals, at their places."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np
from matplotlib.axes import Axes

from weakteach.report.styles import Style, named
from weakteach.results.findings import MeansFigure
from weakteach.statistics.estimate import Estimate

# An interval extends an axis by at most this many times the median half-width of all intervals.
WIDEST = 2.0


def places_of(figure: MeansFigure) -> list[str]:
    """The places on the x axis, in the order of all series, each of which may lack some places."""
    places: list[str] = []
    for series in figure.series:
        at = 0
        for mark in series.marks:
            if mark.x not in places:
                places.insert(at, mark.x)
            at = places.index(mark.x) + 1
    return places


def finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def span(estimates: Sequence[Estimate], others: Iterable[float] = ()) -> tuple[float, float] | None:
    """The two ends of an axis. It shows all values and ``others``, and all intervals except for the
    outer parts of those that are far wider than the median one. None without any value."""
    known = [e for e in estimates if math.isfinite(e.value)]
    points = finite([*(e.value for e in known), *others])
    if not points:
        return None
    halves = finite((e.high - e.low) / 2 for e in known)
    most = WIDEST * median(halves) if halves else 0.0
    ends = finite(
        end for e in known for end in (max(e.low, e.value - most), min(e.high, e.value + most))
    )
    low, high = min([*points, *ends]), max([*points, *ends])
    room = 0.06 * (high - low) or max(0.1 * abs(high), 0.1)
    return low - room, high + room


def draw_estimates(
    axes: Axes, at: Sequence[tuple[float, Estimate]], look: Style, name: str
) -> None:
    # No bar is drawn to an end that is missing, or from a value beyond that end of its interval.
    ends = [(e.value - e.low, e.high - e.value) for _, e in at]
    errors = [[max(end, 0) if math.isfinite(end) else 0 for end in side] for side in ends]
    axes.errorbar(
        [x for x, _ in at], [e.value for _, e in at], yerr=np.array(errors).T if errors else None,
        fmt=look.marker, color=look.color, markerfacecolor=look.face, markeredgewidth=1.2,
        markersize=6, elinewidth=1.3, capsize=2.5, zorder=3, label=named(name),
    )  # fmt: skip
