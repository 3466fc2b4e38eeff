"""The figures of findings, drawn on matplotlib's objects: no pyplot, no global state."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO

import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from weakteach.report.forest import draw_forest, forest_size, is_forest
from weakteach.report.marks import draw_estimates, finite, places_of, span
from weakteach.report.styles import CHARACTER, COLORS, LINES, MARKERS, Style, drawable, named
from weakteach.report.words import one_line
from weakteach.results.findings import (
    Figure,
    Histogram,
    MeansFigure,
    ReliabilityDiagram,
    Scatter,
    TableOf,
    Value,
)
from weakteach.results.numbers import number

NARROWEST, WIDEST = 4.0, 10.5  # inches
LABEL, TURNED_LABEL = 48, 28  # characters
MOST_POINTS = 2000


@dataclass(frozen=True)
class Drawing:
    """One figure, drawn twice: ``svg`` stands in the page, ``width`` pixels wide, and ``png`` is a
    file beside the page."""

    svg: Markup
    width: int
    png: bytes


def draw(figure: Figure, name: str, styles: Mapping[str, Style]) -> Drawing:
    """Draw a figure. The ids in the SVG begin with ``name``, which is unique on the page and needs
    no escaping. The same figure always gives the same bytes."""
    canvas = Canvas(_size(figure), layout="constrained")
    canvas.patch.set_visible(False)
    if isinstance(figure, MeansFigure) and is_forest(figure):
        draw_forest(canvas, figure, styles)
        return _finished(canvas, figure, name)
    axes = canvas.subplots()
    _style(axes, figure)
    if isinstance(figure, MeansFigure):
        _draw_comparison(canvas, axes, figure, styles)
    elif isinstance(figure, Scatter):
        _draw_scatter(axes, figure)
    elif isinstance(figure, ReliabilityDiagram):
        _draw_reliability(axes, figure)
    else:
        _draw_histogram(axes, figure, styles)
    _legend(canvas, axes)
    return _finished(canvas, figure, name)


def _finished(canvas: Canvas, figure: Figure, name: str) -> Drawing:
    svg = _svg(canvas, figure, name)
    canvas.patch.set_visible(True)
    title = _wrapped(one_line(figure.title, 200), canvas.get_figwidth())
    canvas.suptitle(title, fontsize=11, color=COLORS["ink"], parse_math=False)
    buffer = BytesIO()
    canvas.set_dpi(160)
    FigureCanvasAgg(canvas).print_png(buffer, metadata={"Software": None})
    return Drawing(svg, round(96 * canvas.get_figwidth()), buffer.getvalue())


def numbers_of(figure: Figure) -> TableOf:
    """What a figure shows, as a table."""
    columns: tuple[str, ...]
    rows: Iterable[tuple[Value, ...]]
    if isinstance(figure, MeansFigure):
        places = places_of(figure)
        columns = (figure.x_label, "series", figure.y_label, "by seed")
        marks = [(series.name, mark) for series in figure.series for mark in series.marks]
        marks.sort(key=lambda named: places.index(named[1].x))
        rows = (
            (mark.x, name, mark.estimate, ", ".join(map(number, mark.seeds)) or None)
            for name, mark in marks
        )
    elif isinstance(figure, Scatter):
        columns = ("measurement", "points", "least", "median", "greatest")
        rows = (
            (label, len(values), *_spread(values))
            for label, values in ((figure.x_label, figure.x), (figure.y_label, figure.y))
        )
    elif isinstance(figure, ReliabilityDiagram):
        columns, rows = ("mean confidence", "accuracy", "pairs"), figure.bins
    else:
        columns = ("from", "to", *figure.counts)
        rows = zip(figure.edges, figure.edges[1:], *figure.counts.values(), strict=False)
    return TableOf(figure.title, columns, tuple(rows))


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    known = finite(values)
    return tuple(map(float, np.quantile(known, [0, 0.5, 1]))) if known else (math.nan,) * 3


def _slot(figure: MeansFigure) -> float:
    """Inches for one place on the x axis."""
    return max(0.6, 0.2 + 0.15 * len(figure.series))


def _size(figure: Figure) -> tuple[float, float]:
    if not isinstance(figure, MeansFigure):
        return NARROWEST, 3.6
    if is_forest(figure):
        return forest_size(figure)
    width = 0.9 + len(places_of(figure)) * _slot(figure)
    width = min(max(width, NARROWEST), WIDEST)
    return width, 3.2 + _legend_height([named(series.name) for series in figure.series], width)


def _draw_comparison(
    canvas: Canvas, axes: Axes, figure: MeansFigure, styles: Mapping[str, Style]
) -> None:
    places = places_of(figure)
    if figure.reference is not None:
        label = named(f"{figure.reference_name} ({figure.reference:g})")
        axes.axhline(figure.reference, color=COLORS["muted"], ls=(0, (6, 3)), lw=1.2, label=label)
    step = 0.8 / max(len(figure.series), 1)
    drawn = False
    for turn, series in enumerate(figure.series):
        look = styles[series.name]
        middles = [places.index(m.x) - 0.4 + (turn + 0.5) * step for m in series.marks]
        marks = list(zip(middles, series.marks, strict=True))
        seeds = [(x - 0.27 * step, seed) for x, mark in marks for seed in finite(mark.seeds)]
        axes.plot(
            [x for x, _ in seeds], [seed for _, seed in seeds], ls="", marker=look.marker, ms=2.6,
            color=look.color, alpha=0.65, mew=0, zorder=2,
        )  # fmt: skip
        means = [(x + 0.1 * step, m.estimate) for x, m in marks if math.isfinite(m.estimate.value)]
        draw_estimates(axes, means, look, series.name)
        drawn |= bool(seeds or means)
    if not drawn:
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "no result yet", transform=axes.transAxes, ha="center", color=COLORS["muted"]
        )
    marks_of_all = [mark for series in figure.series for mark in series.marks]
    if shown := span(
        [m.estimate for m in marks_of_all], [s for m in marks_of_all for s in m.seeds]
    ):
        axes.set_ylim(*shown)
    for between in range(1, len(places)):
        axes.axvline(between - 0.5, color=COLORS["grid"], lw=0.8, zorder=0)
    axes.set_xlim(-0.5, max(len(places), 1) - 0.5)
    _label_places(canvas, axes, places)


def _label_places(canvas: Canvas, axes: Axes, places: Sequence[str]) -> None:
    slot = (canvas.get_figwidth() - 0.9) / max(len(places), 1)
    letters = max(int(slot / CHARACTER), 4)
    lines = [textwrap.wrap(one_line(place, LABEL), letters) or [""] for place in places]
    whole = all(len(word) <= letters for p in places for word in re.split(r"[\s-]", p))
    if whole and max(map(len, lines), default=0) <= 4:
        labels, turn = ["\n".join(wrapped) for wrapped in lines], {}
    else:
        labels = [_turned(place) for place in places]
        turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        longest = max(len(line) for label in labels for line in label.split("\n"))
        canvas.set_figheight(canvas.get_figheight() + 0.65 * CHARACTER * longest)
    axes.set_xticks(range(len(labels)), [drawable(label) for label in labels], parse_math=False)
    for tick in axes.get_xticklabels():
        tick.update(turn)


def _turned(text: str) -> str:
    """The text on two lines for a turned label. A long text loses its middle, since names of one
    family often differ at their ends."""
    line = one_line(text, 2 * LABEL)
    if len(line) > 2 * TURNED_LABEL:
        kept = TURNED_LABEL - 4
        line = f"{line[:kept]}\N{HORIZONTAL ELLIPSIS}{line[-kept:]}"
    return "\n".join(textwrap.wrap(line, TURNED_LABEL)) or " "


def _draw_scatter(axes: Axes, figure: Scatter) -> None:
    every = -(-len(figure.x) // MOST_POINTS) or 1
    axes.plot(
        figure.x[::every], figure.y[::every], ls="", marker="o", ms=3, mew=0, alpha=0.55,
        color=COLORS["c1"], label=f"1 of {every} points" if every > 1 else "_",
    )  # fmt: skip
    axes.grid(axis="x", color=COLORS["grid"], lw=0.8)


def _draw_reliability(axes: Axes, figure: ReliabilityDiagram) -> None:
    known = [bin for bin in figure.bins if math.isfinite(bin[0]) and math.isfinite(bin[1].value)]
    left = min([0.5, *(confidence for confidence, _, _ in known)])
    ends = [*finite(estimate.low for _, estimate, _ in known), *(e.value for _, e, _ in known)]
    axes.set_xlim(left - 0.02, 1.02)
    axes.set_ylim(max(min([left, *ends]) - 0.15, 0), 1.02)
    axes.plot([0, 1], [0, 1], color=COLORS["muted"], ls=LINES[1], lw=1.2, label="calibrated")
    look = Style(COLORS["c1"], MARKERS[0], LINES[0], True)
    axes.plot([c for c, _, _ in known], [e.value for _, e, _ in known], color=look.color, lw=1.2)
    draw_estimates(axes, [(c, e) for c, e, _ in known], look, "accuracy")
    most = max((pairs for _, _, pairs in known), default=0)
    if most:
        below = axes.get_ylim()[0]
        axes.bar(
            [c for c, _, _ in known], [0.14 * pairs / most for _, _, pairs in known],
            width=0.02, bottom=below, color=COLORS["grid"], edgecolor=COLORS["muted"], lw=0.6,
            label=f"pairs, at most {most:,}",
        )  # fmt: skip


def _draw_histogram(axes: Axes, figure: Histogram, styles: Mapping[str, Style]) -> None:
    for name, counts in figure.counts.items():
        look = styles[name]
        axes.stairs(counts, figure.edges, color=look.color, ls=look.line, lw=1.6, label=named(name))
    axes.set_ylim(bottom=0)


def _labels(figure: Figure) -> tuple[str, str]:
    if isinstance(figure, ReliabilityDiagram):
        return "confidence of the teacher", "accuracy"
    return figure.x_label, "pairs" if isinstance(figure, Histogram) else figure.y_label


def _style(axes: Axes, figure: Figure) -> None:
    axes.set_facecolor("none")
    x_label, y_label = (drawable(named(label)) for label in _labels(figure))
    axes.set_xlabel(x_label, fontsize=10, color=COLORS["ink"], parse_math=False)
    axes.set_ylabel(y_label, fontsize=10, color=COLORS["ink"], parse_math=False)
    axes.tick_params(colors=COLORS["ink"], labelsize=9, length=0)
    axes.ticklabel_format(useOffset=False)
    axes.grid(axis="y", color=COLORS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(COLORS["muted"])


def _legend_columns(names: Sequence[str], width: float) -> int:
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    return min(max(int((width - 0.2) / (0.5 + 0.9 * CHARACTER * longest)), 1), max(len(names), 1))


def _legend_height(names: Sequence[str], width: float) -> float:
    columns = _legend_columns(names, width)
    rows = [names[start::columns] for start in range(columns)]
    return 0.18 * max(sum(1.2 + name.count("\n") for name in row) for row in rows)


def _legend(canvas: Canvas, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    legend = canvas.legend(
        handles, list(map(drawable, names)), loc="outside lower left", frameon=False, fontsize=9,
        labelcolor=COLORS["ink"], ncols=_legend_columns(names, canvas.get_figwidth()),
        handlelength=1.8, columnspacing=1.2, borderpad=0.1,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _wrapped(text: str, width: float) -> str:
    return drawable("\n".join(textwrap.wrap(text, int(width / CHARACTER / 1.3))))


def _svg(canvas: Canvas, figure: Figure, name: str) -> Markup:
    buffer = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(canvas).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Ids must differ between the figures of a page, and matplotlib's differ from run to run.
    ids: dict[str, str] = {}
    text = re.sub(
        r'(\bid="|href="#|url\(#)([^")]+)',
        lambda found: found[1] + ids.setdefault(found[2], f"{name}-{len(ids)}"),
        text,
    )
    for color, code in COLORS.items():
        text = text.replace(code, f"var(--{color})")
    svg, body = text.split(">", 1)
    labels = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    title = escape(one_line(figure.title, 200))
    described = f"{len(numbers_of(figure).rows)} rows of numbers follow the figure as a table."
    return Markup(
        f'{svg} {labels}><title id="{name}-title">{title}</title>'
        f'<desc id="{name}-desc">{described}</desc>{body}'
    )
