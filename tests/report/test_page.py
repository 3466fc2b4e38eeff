"""The page of a study: its numbers, its figures, and texts that it must not trust."""

import io
import math
import re
import struct
import threading
import time
import warnings
from base64 import b64encode
from dataclasses import fields, is_dataclass, replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from rich.console import Console

from weakteach.report.figures import draw, numbers_of
from weakteach.report.forest import draw_forest
from weakteach.report.marks import places_of, span
from weakteach.report.page import write_report
from weakteach.report.styles import styles_of
from weakteach.report.terminal import terminal_tables
from weakteach.report.words import legible, told_once
from weakteach.results.findings import (
    Answer,
    ClaimRow,
    Comparison,
    Example,
    Figure,
    Findings,
    Histogram,
    Mark,
    Ran,
    Reliability,
    Scatter,
    Section,
    Series,
    TableOf,
)
from weakteach.results.numbers import number, with_half, with_interval
from weakteach.statistics.estimate import Estimate
from weakteach.study.arms import ROLES
from weakteach.study.manifest import StudyInfo

NAN = math.nan
UNKNOWN = Estimate(NAN, NAN, NAN)
HOSTILE = (
    "<script>alert(1)</script> ]]> --> <!-- </svg></style></title> \" ' & {{ 7 * 7 }} $\\frac{x$ "
    "[red]rich[/red] [link=http://evil.example]x[/link] \x00\x1b[31m \u202egnirts\u2066 \ud800 中 "
)


def study(**changes: Any) -> StudyInfo:
    made = StudyInfo(
        name="paper",
        title="Every experiment of the publication",
        preset="embedded",
        command="python sweeps/paper.py --storage runs",
        storage="/home/someone/runs",
        steps_total=214,
        steps_existing_at_start=12,
        steps_computed=202,
        started=1_760_000_000.0,
        seconds=1384.0,
    )
    return replace(made, **changes)


RAN = Ran(
    facts=(("teachers", "opt-45k, opt-230k"), ("seeds", "0, 1, 2"), ("gold", "world")),
    data=(
        {"source": "world:3584", "rows": 3584, "pairs": 3580, "quarantined": 4},
        {"source": "posts:2048"},
    ),
    settings=(("test pairs", "512"), ("Sft of opt-45k", '{"lr": 0.0012, "steps": 48}')),
    versions=(("ray", "2.60.0"), ("torch", "2.9.0"), ("weakteach source", "abcdef012345")),
    device_seconds=4120.0,
)


NAMES = (
    "base, not aligned", "human labels, SFT only", "human labels", "human labels of all pairs",
    "human labels of the labeled part, as many updates", "gold labels", "weak labels",
    "human labels with random errors", "weak labels, matched pairs only",
)  # fmt: skip


def comparison(series: int, places: int, seeds: int = 3, long: bool = False) -> Comparison:
    draws = np.random.default_rng(series * 100 + places)
    names = ("SmolLM2-135M-Instruct at fraction {}/16", "opt-{}k")
    made = []
    for turn in range(series):
        marks = []
        for place in range(places):
            value = float(0.2 * turn + 0.1 * place + draws.normal(0, 0.1))
            half = float(draws.uniform(0.05, 0.3))
            marks.append(
                Mark(
                    names[not long].format(place + 1),
                    Estimate(value, value - half, value + half),
                    tuple(map(float, draws.normal(value, 0.1, seeds))),
                )
            )
        made.append(Series(NAMES[turn], tuple(marks)))
    return Comparison(
        "Gold reward by student", "student", "gold reward of the student", tuple(made), 0.0
    )


def scatter(points: int = 120) -> Scatter:
    draws = np.random.default_rng(3)
    x = draws.uniform(0, 1, points)
    y = 0.6 * x + draws.normal(0, 0.1, points)
    return Scatter(
        "Similarity of generations", "student on weak labels", "student on human labels",
        tuple(map(float, x)), tuple(map(float, y)), "R² = 0.58 [0.49, 0.66]",
    )  # fmt: skip


def reliability() -> Reliability:
    accuracies = [0.5 + 0.035 * n for n in range(9)]
    bins = tuple(
        (0.525 + 0.05 * n, Estimate(value, value - 0.06, value + 0.06), 300 - 30 * n)
        for n, value in enumerate(accuracies)
    )
    return Reliability("Calibration of opt-45k", bins, "ECE 0.041 [0.030, 0.055]")


def histogram() -> Histogram:
    edges = tuple(float(edge) for edge in np.linspace(-2, 2, 17))
    counts = {
        "matched": tuple(int(200 * math.exp(-((n - 10) ** 2) / 12)) for n in range(16)),
        "mismatched": tuple(int(120 * math.exp(-((n - 6) ** 2) / 9)) for n in range(16)),
    }
    return Histogram("Margins of opt-45k", "margin", edges, counts)


def claim(verdict: str = "supported", **changes: Any) -> ClaimRow:
    made = ClaimRow(
        "E1", "Weak labels are at least as good as human labels.", verdict,
        "gold reward, weak minus human", Estimate(0.21, 0.05, 0.37), 0.012,
        "Decided with these prompts.",
    )  # fmt: skip
    return replace(made, **changes)


def section(**changes: Any) -> Section:
    table = TableOf(
        "Gold reward of students, mean over seeds",
        ("labels", "student", "gold reward", "pairs", "share"),
        (
            ("weak labels", "opt-230k", Estimate(0.8412, 0.71, 0.97), 512, 0.638),
            ("human labels", "opt-230k", Estimate(-0.0041, NAN, NAN), 12048, None),
            ("gold labels", None, UNKNOWN, 0, NAN),
        ),
        "Holm's correction within this table.",
    )
    published = TableOf(
        "Gold reward, weak / human",
        ("student", "published weak", "our weak"),
        (("OPT-1.3B", 4.84, Estimate(0.84, 0.71, 0.97)),),
    )
    examples = tuple(
        Example(
            f"Human: how do I mend a tap number {n}?\n\nAssistant:", "Close the valve first.",
            "I do not know.", 0.3 * n, None if n == 1 else 0.5 - n,
        )
        for n in range(3)
    )  # fmt: skip
    made = Section(
        "E1", "Student size", "Does a larger student gain more from weak labels?",
        (comparison(4, 3), scatter()), (table,), published,
        (
            claim(primary=True),
            claim("not decided", needed="About 2,300 prompts would decide it."),
        ), examples,
    )  # fmt: skip
    return replace(made, **changes)


def findings(*sections: Section, **changes: Any) -> Findings:
    made = Findings(
        answers=(
            Answer("E1", "supported", "Supported: weak labels are at least as good."),
            Answer("sizes", "worse", "With 1/8 of the pairs labeled, weak labels teach worse."),
            Answer("E9", "not decided", "Not decided: noise is better."),
        ),
        ran=RAN,
        sections=sections,
        claims=(
            claim(),
            claim("contradicted", experiment="E7", sentence="Weak noise is better than random."),
            claim("not decided", experiment="E9", estimate=None, p=None, needed=""),
        ),
        teachers=(
            TableOf(
                "Teachers on held-out pairs",
                ("teacher", "accuracy", "ECE", "longer wins"),
                (("opt-45k", Estimate(0.638, 0.614, 0.662), 0.041, 0.45),),
            ),
        ),
        teacher_figures=(reliability(), histogram()),
        cost=TableOf("Cost", ("step", "steps", "device time"), (("Dpo", 24, "41 min"),)),
        failures=(),
        arms_done=8,
        arms_failed=0,
        arms_pending=0,
    )
    return replace(made, **changes)


EMPTY = findings(
    answers=(), claims=(), teachers=(), teacher_figures=(), arms_done=0, arms_pending=8,
    cost=TableOf("Cost", ("step", "device time"), ()),
)  # fmt: skip


def page(folder: Path, found: Findings, final: bool = True, **changes: Any) -> str:
    files = write_report(folder, study(**changes), found, final)
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert there == set(files)
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """Tags, ids and the visible words of a page, and whether its elements nest."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        # A browser ends a paragraph where a block begins.
        assert "p" not in self.open or tag not in ("p", "div", "details", "table", "ul", "ol")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th", "p", "div", "li", "h2", "caption"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


def with_hostile_texts(value: Any) -> Any:
    """The same values with every text in them hostile, and long lines."""
    if isinstance(value, str):
        return f"{HOSTILE}{value}" + "long" * 2500
    if isinstance(value, tuple):
        return tuple(map(with_hostile_texts, value))
    if isinstance(value, dict):
        return {with_hostile_texts(k): with_hostile_texts(v) for k, v in value.items()}
    if is_dataclass(value):
        changed = {f.name: with_hostile_texts(getattr(value, f.name)) for f in fields(value)}
        return type(value)(**changed)  # type: ignore[operator]
    return value


def printed(found: Findings, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in terminal_tables(found):
        console.print(table)
    return console.export_text()


def test_the_page_shows_what_was_found(tmp_path: Path) -> None:
    text = Page(page(tmp_path, findings(section()))).text
    for words in (
        "8 of 8 arms done",
        "Of 3 claims of the publication, 1 is supported, 1 is contradicted and 1 is not decided.",
        "✓ Supported: weak labels are at least as good. E1",
        "▼ With 1/8 of the pairs labeled, weak labels teach worse.",
        "✓ supported · primary claim",
        "E1 Student size",
        "gold reward, weak minus human: 0.21 [0.05, 0.37], p = 0.012",
        "About 2,300 prompts would decide it.",
        "0.84 [0.71, 0.97]",
        "0.638 [0.614, 0.662]",
        "12,048",
        "Published against ours",
        "ECE 0.041 [0.030, 0.055]",
        "R² = 0.58",
        "Does a larger student gain more from weak labels?",
        "3584 rows = 3580 pairs + 4 quarantined · source world:3584",
        "source posts:2048",
        "214: 12 existed at the start, 202 computed",
        "68.7 min of device time",
        "Teachers opt-45k, opt-230k",
        "No arm failed",
        "Close the valve first.",
    ):
        assert words in text, words
    assert "nan" not in text.lower()
    assert "None" not in text


def test_an_interval_of_these_seeds_alone_is_marked(tmp_path: Path) -> None:
    alone = Estimate(0.21, 0.05, 0.37, seeds=2, prompts=500)
    shown = {
        seeds: Page(
            page(
                tmp_path / str(seeds),
                findings(
                    section(
                        figures=(),
                        tables=(TableOf("t", ("a", "b"), (("x", estimate),)),),
                        claims=(claim(estimate=estimate),),
                    ),
                    teacher_figures=(),
                ),
            )
        ).text
        for seeds, estimate in ((2, alone), (3, replace(alone, seeds=3, covers_seeds=True)))
    }
    for words in (
        "0.21 [0.05, 0.37]†",
        "† The interval is for new prompts",
        "for these seeds alone",
    ):
        assert words in shown[2]
        assert words not in shown[3]


def test_contents_lead_to_every_section(tmp_path: Path) -> None:
    found = findings(section(), section(id="E 7/§", title="Noise"), section(id="teachers"))
    made = Page(page(tmp_path, found, final=False))
    links = [a["href"] or "" for tag, a in made.tags if tag == "a"]
    ids = made.ids
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [link for link in links if link in ("#E1", "#E-7", "#teachers-2x", "#teachers")]
    images = {link for link in links if not link.startswith("#")}
    pngs = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert images == pngs
    assert len(pngs) == 8


def test_nothing_is_loaded_and_only_the_known_script_runs(tmp_path: Path) -> None:
    html = page(tmp_path, findings(section()))
    made = Page(html)
    addresses = set(re.findall(r"\w+://[^\s\"'<>)]+", html))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.findall(r"@import|url\((?!#)", html)
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in made.tags}
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    policy = next(a["content"] for tag, a in made.tags if "http-equiv" in a)
    hashed = b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    )


def test_texts_are_not_trusted(tmp_path: Path) -> None:
    found = findings(section(), failures=(("arm", "weak", "The loss is NaN"),))
    plain = Page(page(tmp_path / "plain", found))
    info = with_hostile_texts(study())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path / "hostile", info, with_hostile_texts(found), True)
    html = (tmp_path / "hostile" / "report.html").read_text()
    hostile = Page(html)
    assert html.count("<script>") == 1
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags}
    names = [{name for _, a in made.tags for name in a} for made in (hostile, plain)]
    assert names[0] <= names[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ]]&gt;" in html
    assert "{{ 7 * 7 }}" in hostile.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)
    assert len(html) < 2_000_000
    assert "⟨U+0000⟩⟨U+001B⟩[31m ⟨U+202E⟩gnirts⟨U+2066⟩ ⟨U+D800⟩" in hostile.text


def test_a_long_text_is_folded_but_whole(tmp_path: Path) -> None:
    prompt = "word " * 2000 + "end of prompt"
    long = Example(prompt, "a", "b", 0.1, None)
    html = page(tmp_path, findings(section(examples=(long,))))
    assert "all 10,013 characters" in html
    assert prompt in html


def test_examples_stand_side_by_side_with_what_they_are_sorted_by(tmp_path: Path) -> None:
    made = Page(page(tmp_path, findings(section())))
    items = [a for tag, a in made.tags if tag == "li" and "data-margin" in a]
    assert [item["data-gold"] for item in items] == ["0.5", "", "-1.5"]
    assert "Teacher's choice" in made.text
    assert "Human's choice" in made.text


def test_before_any_result_the_page_says_so(tmp_path: Path) -> None:
    html = page(tmp_path, EMPTY, final=False)
    text = Page(html).text
    assert "So far 0 of 8 arms done." in text
    assert "claim" not in text
    assert "No experiment has a result yet." in text
    assert "No teacher is measured yet." in text
    assert "No row yet." in text
    assert "<svg" not in html
    assert printed(EMPTY) == ""


def test_pending_and_failed_arms_are_named(tmp_path: Path) -> None:
    found = findings(
        section(pending=2),
        failures=(("opt-45k 1/16 seed 2", "weak", "The loss is NaN at step 17"),),
        arms_done=5, arms_failed=1, arms_pending=2,
    )  # fmt: skip
    running = Page(page(tmp_path / "running", found, final=False)).text
    assert "So far 5 of 8 arms done, 1 failed." in running
    assert "2 arms pending." in running
    assert "5 arms done, 1 failed, 2 pending." in running
    assert "E1 Student size: 2 pending" in running
    assert "opt-45k 1/16 seed 2 weak The loss is NaN at step 17" in running
    ended = Page(page(tmp_path / "ended", found)).text
    assert "Ended with 5 of 8 arms done, 1 failed." in ended
    assert "2 arms not run." in ended
    assert "Progress" not in ended


def test_a_figure_is_told_in_words_and_numbers(tmp_path: Path) -> None:
    made = Page(page(tmp_path, findings(section())))
    for _, svg in (tag for tag in made.tags if tag[0] == "svg"):
        assert svg["role"] == "img"
        assert set((svg["aria-labelledby"] or "").split()) <= set(made.ids)
    mark = section().figures[0].series[2].marks[1]  # type: ignore[union-attr]
    shown = " ".join(with_interval(mark.estimate))
    seeds = ", ".join(map(number, mark.seeds))
    assert f"{mark.x} human labels {shown} {seeds}" in made.text


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


def test_what_all_rows_say_is_said_once() -> None:
    rows = (("a", "world", 1), ("b", "world", 2))
    table = told_once(TableOf("t", ("x", "domain", "n"), rows, "A note."))
    assert table.columns == ("x", "n")
    assert table.rows == (("a", 1), ("b", 2))
    assert table.note == "In all rows domain: world. A note."
    single = TableOf("t", ("x", "domain", "n"), rows[:1])
    assert told_once(single) == single


def test_no_cell_takes_six_lines_of_a_narrow_terminal() -> None:
    roles = tuple(name for name in ROLES.values() if name != ROLES["teacher"])
    estimate = Estimate(-0.1, -1.41, 1.32)
    rows = tuple((f, f"{r}, teacher opt-230k", estimate, estimate, 1.0, "2, 64")
                 for f in ("1/8", "1/2") for r in roles)  # fmt: skip
    columns = ("labeled", "students of", "gold reward", "minus human", "p (Holm)", "seeds, prompts")
    shown = section(tables=(TableOf("Gold reward of the student", columns, rows),))
    for width in (80, 120):
        text = printed(findings(shown), width)
        lines = [line.rstrip() for line in text.splitlines()]
        assert max(map(len, lines)) <= width
        first = next(n for n, line in enumerate(lines) if line.startswith(" 1/8"))
        rows_shown = "\n".join(lines[first : lines.index("", first)]).replace("\n 1/", "\n\n1/")
        assert max(row.count("\n") + 1 for row in rows_shown.split("\n\n")) <= 3


def test_series_differ_by_more_than_color() -> None:
    styles = styles_of([comparison(9, 2), histogram()])
    looks = {(style.marker, style.filled) for style in styles.values()}
    assert len(styles) == 11
    assert len(looks) == 11
    assert len({(style.color, style.filled) for style in styles.values()}) == 11
    assert styles["matched"].line != styles["mismatched"].line


ODD: tuple[Figure, ...] = (
    Comparison("empty", "x", "y", ()),
    Comparison("no mark", "x", "y", (Series("a", ()),), 0.5),
    Comparison("unknown", "x", "y", (Series("a", (Mark("p", UNKNOWN, (NAN,)),)),)),
    Comparison("no interval", "x", "y", (Series("a", (Mark("p", Estimate(1, NAN, NAN)),)),)),
    Comparison("one end", "x", "y", (Series("a", (Mark("", Estimate(1, NAN, 2), (1.0,)),)),)),
    Comparison("odd end", "x", "y", (Series("a", (Mark("p", Estimate(3, 1, 2)),)),)),
    Scatter("no point", "x", "y", (), (), ""),
    Scatter("one missing", "x", "y", (1.0, NAN), (2.0, 3.0), ""),
    Scatter("many", "x", "y", (1.0, 2.0) * 5000, (2.0, 3.0) * 5000, ""),
    Reliability("no bin", (), ""),
    Reliability("empty bin", ((NAN, UNKNOWN, 0), (0.7, Estimate(0.6, NAN, NAN), 4)), ""),
    Histogram("no group", "x", (0.0, 1.0), {}),
    Histogram("no count", "x", (0.0, 1.0), {"a": (0,)}),
)


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html = page(tmp_path, findings(section(figures=ODD), teacher_figures=()))
    assert not re.search(r"\bnan\b", Page(html).text)
    assert html.count("<svg") == len(ODD) == len(list(tmp_path.rglob("*.png")))
    # 10,000 points are thinned out, and the legend says so.
    assert html.count("<use") < 4000


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True).map(sorted), max_size=5))
@example([["a", "c"], ["a", "b", "c"]])
def test_places_hold_every_mark_once(orders: list[list[str]]) -> None:
    series = tuple(Series(str(n), tuple(Mark(x, UNKNOWN) for x in o)) for n, o in enumerate(orders))
    places = places_of(Comparison("t", "x", "y", series))
    assert sorted(places) == sorted({x for order in orders for x in order})
    if len(orders) == 2 and orders[0] == ["a", "c"] and orders[1] == ["a", "b", "c"]:
        assert places == ["a", "b", "c"]


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    found = findings(section(), section(id="E2"))
    folders = [tmp_path / name for name in "ab"]
    threads = [
        threading.Thread(target=write_report, args=(folder, study(), found, False))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    ]
    assert len(contents[0]) == 7
    assert contents[0] == contents[1]


def test_reports_are_quick(tmp_path: Path) -> None:
    sections = tuple(section(id=f"E{n}") for n in range(1, 6))
    started = time.process_time()
    html = page(tmp_path, findings(*sections))
    figures = html.count("<svg")
    assert figures == 12
    assert time.process_time() - started < 0.75 * figures
    assert len(html) < 100_000 * figures


def test_a_terminal_shows_values_and_verdicts() -> None:
    other = section(id="E2", title="Supervisor", tables=())
    text = printed(findings(section(), other))
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    assert "E1 Student size · Gold reward of students, mean over seeds" in words
    assert "0.84 ±0.13" in words
    assert "E2 Supervisor · Gold reward by student" in words
    mark = other.figures[0].series[0].marks[0]  # type: ignore[union-attr]
    assert with_half(mark.estimate) in words
    assert words.startswith(
        "✓ Supported: weak labels are at least as good. ▼ With 1/8 of the pairs"
    )


def test_a_terminal_is_not_told_what_to_do() -> None:
    text = printed(with_hostile_texts(findings(section(), section(tables=()))))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]rich[/red]" in "".join(text.split())


def test_numbers_keep_the_decimals_that_mean_something() -> None:
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert number(4.84) == "4.84"
    assert number(0.6384) == "0.638"
    assert number(-0.0041) == f"{minus}0.0041"
    assert number(-0.00001) == f"{minus}1e{minus}05"
    assert number(1384.6) == "1,385"
    assert number(12048) == "12,048"
    assert number(0.0) == number(-0.0) == "0.00"
    assert number(None) == number(NAN) == number(math.inf) == dash
    assert with_interval(Estimate(0.6384, 0.614, 0.662)) == ("0.638", "[0.614, 0.662]")
    assert with_interval(Estimate(4.84, 4.6, 5.1)) == ("4.84", "[4.60, 5.10]")
    assert with_interval(Estimate(1.0, 1.0, 1.0)) == ("1.00", "[1.00, 1.00]")
    assert with_interval(UNKNOWN) == (dash, "")
    assert with_half(Estimate(0.5, NAN, 1.0)) == "0.500"


@given(st.text(st.characters(), max_size=40))
def test_legible_text_can_be_written_and_turns_nothing(text: str) -> None:
    shown = legible(text)
    shown.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert legible(shown) == shown
