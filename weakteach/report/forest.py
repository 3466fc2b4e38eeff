"""A comparison with its differences, as rows: names at the left, values and differences in two
panels, the latter with a line at zero."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from weakteach.report.marks import finite, places_of, span
from weakteach.report.styles import COLORS, Style, drawable
from weakteach.report.words import one_line
from weakteach.results.findings import Mark, MeansFigure, Series

WIDTH, ROW, MARGIN, LOWEST = 10.5, 0.235, 1.0, 2.2  # inches
NAME = 52  # characters
CUT = ("<", ">")  # markers of intervals that go on beyond a panel

# The name of a row, its series (None for a heading), and its place on the figure's x axis.
Row = tuple[str, Series | None, str]


def is_forest(figure: MeansFigure) -> bool:
    return bool(figure.differences)


def forest_size(figure: MeansFigure) -> tuple[float, float]:
    return WIDTH, max(MARGIN + ROW * len(_rows(figure)), LOWEST)


def draw_forest(canvas: Canvas, figure: MeansFigure, styles: Mapping[str, Style]) -> None:
    rows = _rows(figure)
    left, right = canvas.subplots(1, 2, sharey=True)
    _panel(left, rows, {s.name: s for s in figure.series}, styles)
    _panel(right, rows, {s.name: s for s in figure.differences}, styles, zero=True)
    labels = (figure.y_label, figure.difference_label)
    for axes, label in zip((left, right), labels, strict=True):
        axes.set_xlabel(
            drawable(one_line(label, 60)), fontsize=10, color=COLORS["ink"], parse_math=False
        )
    left.set_ylim(len(rows) - 0.4, -0.6)
    names = [drawable(one_line(name, NAME)) for name, _, _ in rows]
    left.set_yticks(range(len(rows)), names, parse_math=False)
    for tick, (_, series, _) in zip(left.get_yticklabels(), rows, strict=True):
        if series is None:
            tick.set_fontweight("bold")
    left.set_title(
        drawable(one_line(figure.x_label, 60)), loc="left", fontsize=9, color=COLORS["muted"],
        parse_math=False,
    )  # fmt: skip


def _rows(figure: MeansFigure) -> list[Row]:
    """A heading for each place with its series as rows below it; if the figure has a single series,
    only a row for each place."""
    rows: list[Row] = []
    for place in places_of(figure):
        there = [s for s in figure.series if any(mark.x == place for mark in s.marks)]
        if len(figure.series) > 1:
            rows.append((place, None, place))
        rows += [(s.name if len(figure.series) > 1 else place, s, place) for s in there]
    return rows


def _panel(
    axes: Axes,
    rows: Sequence[Row],
    series: Mapping[str, Series],
    styles: Mapping[str, Style],
    zero: bool = False,
) -> None:
    shown: list[tuple[int, Mark, Style]] = [
        (at, mark, styles[of.name])
        for at, (_, of, place) in enumerate(rows)
        if of is not None and of.name in series
        for mark in series[of.name].marks
        if mark.x == place and math.isfinite(mark.estimate.value)
    ]
    seeds = [seed for _, mark, _ in shown for seed in mark.seeds]
    ends = span([mark.estimate for _, mark, _ in shown], [*seeds, *([0.0] if zero else [])])
    _style(axes)
    if zero:
        axes.axvline(0, color=COLORS["ink"], lw=1.2)
    if ends is None:
        axes.set_xticks([])
        return
    axes.set_xlim(*ends)
    for at, mark, look in shown:
        _draw(axes, at, mark, look, ends)


def _draw(axes: Axes, at: int, mark: Mark, look: Style, ends: tuple[float, float]) -> None:
    estimate, of_seeds = mark.estimate, finite(mark.seeds)
    axes.plot(
        of_seeds, [at + 0.28] * len(of_seeds), ls="", marker=look.marker, ms=2.6, color=look.color,
        alpha=0.65, mew=0, zorder=2,
    )  # fmt: skip
    sides = zip((estimate.low, estimate.high), ends, CUT, (min, max), strict=True)
    for end, edge, marker, outermost in sides:
        if not math.isfinite(end):
            continue
        cut = outermost(end, edge) == end and end != edge
        axes.plot(
            [estimate.value, edge if cut else end], [at, at], color=look.color, lw=1.3,
            solid_capstyle="butt", zorder=3,
        )  # fmt: skip
        axes.plot(
            [edge if cut else end], [at], marker=marker if cut else "|", ms=6, color=look.color,
            clip_on=False, zorder=3,
        )  # fmt: skip
    axes.plot(
        [estimate.value], [at], marker=look.marker, ms=6, color=look.color,
        markerfacecolor=look.face, markeredgewidth=1.2, zorder=4,
    )  # fmt: skip


def _style(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=COLORS["ink"], labelsize=9, length=0)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.grid(axis="x", color=COLORS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(COLORS["muted"])
