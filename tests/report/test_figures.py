"""The figures of a report: their sizes, looks, axes and places."""

import re
import struct
import warnings
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from shown import NAMES, NAN, UNKNOWN, comparison, histogram

from weakteach.report.figures import draw, numbers_of
from weakteach.report.forest import draw_forest
from weakteach.report.marks import places_of, span
from weakteach.report.styles import styles_of
from weakteach.results.findings import (
    Mark,
    MeansFigure,
    Series,
)
from weakteach.statistics.estimate import Estimate


@pytest.mark.parametrize("series", [1, 4, 9])
@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("places", [1, 12])
@pytest.mark.parametrize("long", [False, True])
def test_comparisons_of_all_sizes(series: int, differences: bool, places: int, long: bool) -> None:
    figure = comparison(series, places, long=long)
    if differences:
        beside = tuple(figure.series[1:]) or figure.series
        figure = replace(figure, differences=beside, difference_label="minus human")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that has no room warns
        drawing = draw(figure, "f", styles_of([figure]))
    width, height = struct.unpack(">II", drawing.png[16:24])
    assert 1 / 3 < width / height < 5
    assert drawing.width <= 1010
    colors = set(re.findall(r"#[0-9a-f]{6}\b", str(drawing.svg)))
    assert colors <= {"#000000"}
    assert len(numbers_of(figure).rows) == series * places


def test_an_axis_shows_every_value_and_is_not_set_by_the_widest_interval() -> None:
    narrow = [Estimate(value, value - 0.2, value + 0.2) for value in (0.0, 0.5, 1.0)]
    low, high = span([*narrow, Estimate(0.5, -9.0, 9.0)], [1.1]) or (NAN, NAN)
    assert -0.4 < low < -0.2
    assert 1.2 < high < 1.4
    assert span([UNKNOWN]) is None
    low, high = span([Estimate(1.0, 1.0, 1.0)]) or (NAN, NAN)
    assert low < 1 < high


def test_differences_stand_beside_the_values_with_a_line_at_zero() -> None:
    figure = replace(comparison(2, 2), differences=comparison(2, 2).series[1:])
    canvas = Canvas()
    draw_forest(canvas, figure, styles_of([figure]))
    left, right = canvas.axes
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert names == ["opt-1k", *NAMES[:2], "opt-2k", *NAMES[:2]]
    low, high = right.get_xlim()
    assert low < 0 < high
    assert any(list(line.get_xdata()) == [0, 0] for line in right.lines)


def test_series_differ_by_more_than_color() -> None:
    styles = styles_of([comparison(9, 2), histogram()])
    looks = {(style.marker, style.filled) for style in styles.values()}
    assert len(styles) == 11
    assert len(looks) == 11
    assert len({(style.color, style.filled) for style in styles.values()}) == 11
    assert styles["matched"].line != styles["mismatched"].line


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True).map(sorted), max_size=5))
@example([["a", "c"], ["a", "b", "c"]])
def test_places_hold_every_mark_once(orders: list[list[str]]) -> None:
    series = tuple(Series(str(n), tuple(Mark(x, UNKNOWN) for x in o)) for n, o in enumerate(orders))
    places = places_of(MeansFigure("t", "x", "y", series))
    assert sorted(places) == sorted({x for order in orders for x in order})
    if len(orders) == 2 and orders[0] == ["a", "c"] and orders[1] == ["a", "b", "c"]:
        assert places == ["a", "b", "c"]
