"""The figures of a study's report, drawn on matplotlib's objects: no pyplot, no global state."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO, StringIO
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
# Inline SVG refers to these by name, so that the page's style sheet can turn them dark.
COLORS = {
    "ink": "#1b1e23",
    "muted": "#59626d",
    "grid": "#dde1e6",
    "human": "#0067a3",
    "weak": "#c24e00",
    "gold": "#806200",
    "third": "#00795a",
    "fourth": "#9c3f86",
}
MARKERS = {"human": "o", "weak": "s", "gold": "^"}
# Color, marker and line of each weak model in turn.
TEACHER_STYLES = (
    ("weak", "s", "-"),
    ("third", "^", "--"),
    ("fourth", "o", ":"),
    ("ink", "v", "-."),
)
Z95 = 1.96
PANEL_HEIGHT, PANELS_PER_ROW = 3.4, 4
LABEL_HEIGHT = 0.07  # of a line of text, in heights of the axes


@dataclass(frozen=True)
class SizeFigure:
    """What the size figure shows.

    ``rows`` are the students, one each; ``summary`` their means over seeds; ``outcome`` is the
    column drawn, beside which lie its ``_se`` (rows), ``_low`` and ``_high`` (summary).
    """

    rows: pd.DataFrame
    summary: pd.DataFrame
    outcome: str
    label: str
    weak: tuple[str, ...]
    fractions: tuple[str, ...]

    @property
    def supervisors(self) -> list[tuple[str, str]]:
        """Role and weak model of each place on the x axis."""
        gold = [("gold", "")] if "gold" in set(self.rows["role"]) else []
        return [("human", ""), *(("weak", name) for name in self.weak), *gold]

    @property
    def limits(self) -> tuple[float, float]:
        values, errors = self.rows[self.outcome], Z95 * self.rows[f"{self.outcome}_se"].fillna(0)
        means = [self.summary[f"{self.outcome}{end}"] for end in ("", "_low", "_high")]
        low, high = _range([values - errors, values + errors, *means])
        if np.isnan(low):
            return 0.0, 1.0
        margin = 0.06 * (high - low) or 0.1
        return low - margin, high + margin


def number(value: float | None, digits: int = 2) -> str:
    """A number as the report writes it: a dash if missing, a third digit rather than a zero that
    hides a sign."""
    if value is None or np.isnan(value):
        return DASH
    digits += round(value, digits) == 0 != round(value, digits + 1)
    rounded = round(float(value), digits) + 0.0  # no negative zero
    return f"{rounded:.{digits}f}".replace("-", MINUS)


def size_svgs(figure: SizeFigure) -> list[Markup]:
    """One inline SVG per label fraction, all with the same y axis."""
    width = _panel_width(figure)
    return [
        _svg(
            partial(_size_panel, figure=figure, fraction=text),
            f"size{number}",
            f"{figure.label} by supervisor at labeled fraction {text}",
            width,
        )
        for number, text in enumerate(figure.fractions)
    ]


def size_png(figure: SizeFigure) -> bytes:
    """All panels as one image."""
    columns = max(1, min(len(figure.fractions), PANELS_PER_ROW))
    rows = max(1, -(-len(figure.fractions) // columns))
    size = columns * _panel_width(figure), 0.3 + rows * PANEL_HEIGHT
    canvas = Figure(size, dpi=160, layout="constrained")
    canvas.supxlabel(
        "small marks: seeds, diamonds: means over seeds, both with 95% intervals",
        fontsize=8,
        color=COLORS["muted"],
    )
    axes = canvas.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes[len(figure.fractions) :]:
        ax.set_axis_off()
    for ax, text in zip(axes, figure.fractions, strict=False):
        _size_panel(ax, figure, text)
    buffer = BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def share_svgs(
    summary: pd.DataFrame, weak: Sequence[str], fractions: Sequence[str]
) -> list[Markup]:
    """Agreement on the unlabeled pairs and teacher accuracy on the test pairs, as inline SVG."""
    panels = (
        ("agreement", "Agreement on unlabeled pairs"),
        ("teacher_accuracy", "Teacher accuracy on test pairs"),
    )
    ends = [summary[f"{column}_{end}"] for column, _ in panels for end in ("low", "high")]
    low, high = _range(ends)
    if np.isnan(low):
        return []
    limits = min(0.48, low - 0.02), min(1.0, high + 0.02)

    def draw(ax: Axes, column: str, title: str) -> None:
        _style(ax, title, "share of pairs")
        ax.set_ylim(*limits)
        _share_panel(ax, summary, column, weak, fractions)
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")

    return [
        _svg(partial(draw, column=column, title=title), column, f"{title} by weak size", 4.6)
        for column, title in panels
    ]


def _range(columns: Sequence[Any]) -> tuple[float, float]:
    """The least and the greatest known value; NaN if none is known."""
    values = np.concatenate([np.asarray(column, float) for column in columns])
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)


def _panel_width(figure: SizeFigure) -> float:
    return max(4.0, 1.4 + 0.78 * len(figure.supervisors))


def _size_panel(ax: Axes, figure: SizeFigure, fraction: str) -> None:
    _style(ax, f"labeled fraction {fraction}", figure.label)
    names = _short_names(figure.weak)
    at = figure.rows.loc[figure.rows["fraction_text"] == fraction]
    means = figure.summary.loc[figure.summary["fraction_text"] == fraction]
    labels = []
    for place, (role, weak) in enumerate(figure.supervisors):
        mean = means.loc[(means["role"] == role) & (means["weak"] == weak)]
        value = float(mean[figure.outcome].iloc[0]) if len(mean) else float("nan")
        shown = "no result" if np.isnan(value) else number(value)
        labels.append(f"{names.get(weak, role)}\n{shown}")
        students = at.loc[(at["role"] == role) & (at["weak"] == weak)].sort_values("seed")
        _draw_students(ax, place, role, students, figure.outcome)
        if not np.isnan(value):
            _draw_mean(ax, place + 0.2, mean.iloc[0].to_dict(), figure.outcome)
    ax.set_xticks(range(len(labels)), labels, parse_math=False)
    ax.set_xlabel("student aligned on labels of", fontsize=10, color=COLORS["ink"])
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_ylim(*figure.limits)
    lines = []
    for role, dashes in (("base", (0, (6, 3))), ("sft", (0, (1.5, 2)))):
        mean = means.loc[means["role"] == role][figure.outcome].dropna()
        if len(mean):
            value = float(mean.iloc[0])
            ax.axhline(value, color=COLORS["muted"], linestyle=dashes, linewidth=1.3, zorder=1)
            lines.append((value, f"{role} {number(value)}", "muted"))
    _label_at_right(ax, lines)


def _draw_students(ax: Axes, place: int, role: str, rows: pd.DataFrame, outcome: str) -> None:
    known = rows.dropna(subset=[outcome])
    if known.empty:
        return
    # Seeds stand side by side, left of their mean, so that no interval hides another.
    offsets = np.linspace(-0.3, 0.02, len(known)) if len(known) > 1 else np.array([-0.14])
    ax.errorbar(
        place + offsets,
        known[outcome],
        yerr=Z95 * known[f"{outcome}_se"].fillna(0),
        fmt=MARKERS[role],
        color=COLORS[role],
        markersize=4.5,
        elinewidth=1,
        capsize=2,
        zorder=2,
    )


def _draw_mean(ax: Axes, x: float, mean: Mapping[str, float], outcome: str) -> None:
    value, low, high = (mean[f"{outcome}{end}"] for end in ("", "_low", "_high"))
    if not np.isnan(low):
        ax.plot([x, x], [low, high], color=COLORS["ink"], linewidth=2.6, solid_capstyle="butt")
    ax.plot([x], [value], marker="D", color=COLORS["ink"], markersize=7, zorder=4)


def _share_panel(
    ax: Axes, summary: pd.DataFrame, column: str, weak: Sequence[str], fractions: Sequence[str]
) -> None:
    names, ends = _short_names(weak), []
    offsets = 0.1 * (np.arange(len(weak)) - (len(weak) - 1) / 2)
    for number, name in enumerate(weak):
        color, marker, line = TEACHER_STYLES[number % len(TEACHER_STYLES)]
        rows = summary.loc[(summary["role"] == "weak") & (summary["weak"] == name)]
        rows = rows.set_index("fraction_text").reindex(list(fractions))
        known = rows[column].notna().to_numpy()
        if not known.any():
            continue
        x = np.arange(len(fractions))[known] + offsets[number]
        values, low, high = (
            np.asarray(rows[f"{column}{end}"], float)[known] for end in ("", "_low", "_high")
        )
        ax.errorbar(
            x,
            values,
            yerr=np.maximum([values - low, high - values], 0),
            fmt=marker,
            linestyle=line,
            color=COLORS[color],
            markersize=6,
            linewidth=1.4,
            capsize=3,
        )
        ends.append((values.item(-1), names[name].replace("\n", ""), color))
    ax.axhline(0.5, color=COLORS["muted"], linestyle=(0, (6, 3)), linewidth=1.3, zorder=1)
    ax.set_xticks(range(len(fractions)), list(fractions), parse_math=False)
    ax.set_xlim(-0.4, len(fractions) - 0.6)
    ax.set_xlabel("labeled fraction", fontsize=10, color=COLORS["ink"])
    _label_at_right(ax, [(0.5, "chance", "muted"), *ends])


def _label_at_right(ax: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Name lines at the right edge, each beside its own value but clear of the one below."""
    (low, high), last = ax.get_ylim(), -1.0
    for value, text, color in sorted(labels):
        last = max((value - low) / (high - low), last + LABEL_HEIGHT)
        ax.text(
            1.02,
            last,
            text,
            transform=ax.transAxes,
            color=COLORS[color],
            fontsize=9,
            va="center",
            parse_math=False,
        )


def _style(ax: Axes, title: str, label: str) -> None:
    ax.set_facecolor("none")
    ax.set_title(title, fontsize=10.5, color=COLORS["ink"], loc="left", parse_math=False)
    ax.set_ylabel(label, fontsize=10, color=COLORS["ink"])
    ax.tick_params(colors=COLORS["ink"], labelsize=9, length=0)
    ax.grid(axis="y", color=COLORS["grid"], linewidth=0.8)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(COLORS["muted"])


def _short_names(models: Sequence[str]) -> dict[str, str]:
    """Names for the figures, on two lines where they are long; whole if else two were alike."""
    short = {model: model.rstrip("/").rsplit("/", 1)[-1] for model in models}
    if len(set(short.values())) < len(short):
        short = {model: model for model in models}
    wrapped = {m: textwrap.wrap(s, 12, max_lines=2, placeholder="…") for m, s in short.items()}
    return {model: "\n".join(lines) or model for model, lines in wrapped.items()}


def _svg(draw: Callable[[Axes], None], name: str, description: str, width: float) -> Markup:
    figure = Figure((width, PANEL_HEIGHT), layout="constrained")
    figure.patch.set_visible(False)
    draw(figure.subplots())
    buffer = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Several figures stand on one page, where ids must differ.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for color, code in COLORS.items():
        text = text.replace(code, f"var(--{color})")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1))
