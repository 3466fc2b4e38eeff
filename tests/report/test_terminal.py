"""A study in a terminal, and how numbers and texts are written."""

import io
import math
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from shown import (
    NAN,
    UNKNOWN,
    findings,
    section,
    with_hostile_texts,
)

from weakteach.report.terminal import terminal_tables
from weakteach.report.words import legible, tally, told_once
from weakteach.results.findings import Answer, Findings, TableOf
from weakteach.results.numbers import number, with_half, with_interval
from weakteach.statistics.estimate import Estimate
from weakteach.study.roles import ROLES


def printed(found: Findings, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in terminal_tables(found):
        console.print(table)
    return console.export_text()


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
        assert max(row.count("\n") + 1 for row in rows_shown.split("\n\n")) <= 4


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
        "2 of 3 claims decided. ✓ Supported: weak labels are at least as good. ▼ With 1/8 of"
    )


def test_the_first_line_says_how_much_is_decided() -> None:
    found = findings()
    assert tally(found) == "2 of 3 claims decided."
    more = (*found.answers, Answer("sizes", "worse", ""), Answer("sizes", "not decided", ""))
    failed, gold = Answer("", "failed", "Failed in 1 arm."), Answer("", "told", "The gold agrees.")
    both = findings(answers=(gold, *more, failed))
    assert tally(both) == "2 of 3 claims and 1 of 2 comparisons decided."
    assert tally(findings(claims=(), answers=(more[-1],))) == "0 of 1 comparison decided."
    assert tally(findings(claims=(), answers=(gold, failed))) == ""


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
