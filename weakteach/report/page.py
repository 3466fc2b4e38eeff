"""A study's findings on one page: ``report.html`` with its figures, and tables for a terminal."""

import hashlib
import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from weakteach.report.figures import Drawing, draw, numbers_of, places_of, styles_of
from weakteach.report.words import (
    DASH,
    duration,
    in_short,
    legible,
    moment,
    number,
    one_line,
    probability,
    with_interval,
)
from weakteach.results.findings import ClaimRow, Comparison, Findings, Section, TableOf, Value
from weakteach.statistics.estimate import Estimate
from weakteach.study.manifest import StudyInfo

SYMBOLS = {
    "supported": "\N{CHECK MARK}",
    "contradicted": "\N{MULTIPLICATION X}",
    "not decided": "?",
}
TEMPLATES = Path(__file__).parent / "templates"
TERMINAL_WIDTH, TERMINAL_COLUMNS, LONGEST_NAME = 100, 6, 160


def write_report(
    folder: Path, study: StudyInfo, findings: Findings, final: bool
) -> tuple[Path, ...]:
    """Write ``report.html`` and ``figures/<experiment>-<n>.png`` into a local folder, each whole
    at any time; return their places in the folder.

    ``final`` says that nothing runs any more, whether or not all arms are done. The same values
    give the same bytes.
    """
    anchors = _anchors([section.id for section in findings.sections])
    sections = list(zip(anchors, findings.sections, strict=True))
    drawings = _drawings(findings, anchors)
    page = template("page.html").render(
        study=study,
        findings=findings,
        final=final,
        sections=sections,
        anchor_of={section.id: anchor for anchor, section in sections},
        figures=drawings,
        verdicts=_count_verdicts(findings.claims),
        pending=[(anchor, section) for anchor, section in sections if section.pending],
        script=sort_script(),
        script_hash=script_hash(),
    )
    files = {
        Path("figures") / f"{place}-{n}.png": drawing.png
        for place, drawn in drawings.items()
        for n, drawing in enumerate(drawn, start=1)
    }
    files[Path("report.html")] = page.encode()
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        write_whole(folder / file, content)
    return tuple(files)


def terminal_tables(findings: Findings) -> list[RenderableType]:
    """For each section a table of values ± half their 95% interval, then all claims with their
    verdicts; none is wider than TERMINAL_WIDTH."""
    shown = [
        _terminal_table(f"{section.id} {section.title}", table)
        for section in findings.sections
        if (table := _main_table(section)) is not None
    ]
    if findings.claims:
        columns = ("verdict", "", "claim", "measured", "value", "p")
        rows = [
            (
                f"{symbol(claim.verdict)} {claim.verdict}",
                claim.experiment,
                claim.sentence,
                claim.measured,
                claim.estimate,
                probability(claim.p),
            )
            for claim in findings.claims
        ]
        shown.append(_terminal_table("Claims", TableOf("", columns, tuple(rows))))
    return [Constrain(table, TERMINAL_WIDTH) for table in shown]


def symbol(verdict: str) -> str:
    return SYMBOLS.get(verdict, "\N{MIDDLE DOT}")


def is_text(column: Sequence[Value]) -> bool:
    """Whether the cells of a column are words, which stand at the left."""
    return any(isinstance(value, str) for value in column)


def of_seeds_alone(value: Value) -> bool:
    """Whether an interval is known, but says nothing of seeds that were not tried."""
    if not isinstance(value, Estimate) or value.covers_seeds or not value.seeds:
        return False
    return bool(with_interval(value)[1])


def brief(text: str) -> str:
    """A title or a name, which stands on one line and is repeated."""
    return one_line(text, LONGEST_NAME)


def _main_table(section: Section) -> TableOf | None:
    """The first table of a section, or else the means of its first comparison, side by side."""
    if section.tables:
        return section.tables[0]
    for figure in section.figures:
        if isinstance(figure, Comparison):
            places = places_of(figure)
            names = [series.name for series in figure.series]
            cells: dict[tuple[str, str], Value] = {
                (mark.x, series.name): mark.estimate
                for series in figure.series
                for mark in series.marks
            }
            if len(names) <= len(places):
                rows = [(x, *(cells.get((x, name)) for name in names)) for x in places]
                return TableOf(figure.title, (figure.x_label, *names), tuple(rows))
            rows = [(name, *(cells.get((x, name)) for x in places)) for name in names]
            return TableOf(figure.title, ("", *places), tuple(rows))
    return None


def _terminal_table(title: str, shown: TableOf) -> Group:
    # Text, because names may hold what rich would read as markup.
    heading = f"{title} · {shown.title}" if shown.title else title
    left_out = len(shown.columns) - TERMINAL_COLUMNS
    table = Table(
        caption=Text(f"{left_out} more columns are in the report") if left_out > 0 else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for n, column in enumerate(shown.columns[:TERMINAL_COLUMNS]):
        text = is_text([row[n] for row in shown.rows])
        table.add_column(
            Text(brief(column)),
            justify="left" if text else "right",
            no_wrap=not text,
            overflow="fold",
        )
    for row in shown.rows:
        cells = (brief(in_short(value)) for value in row[:TERMINAL_COLUMNS])
        table.add_row(*map(Text, cells))
    return Group(Text(brief(heading), style="bold"), table)


def _drawings(findings: Findings, anchors: Sequence[str]) -> dict[str, list[Drawing]]:
    """The drawings of each section by its anchor, and those of the teachers."""
    of = {a: section.figures for a, section in zip(anchors, findings.sections, strict=True)}
    of["teachers"] = findings.teacher_figures
    styles = styles_of(figure for figures in of.values() for figure in figures)
    return {
        place: [draw(figure, f"{place}-{n}", styles) for n, figure in enumerate(figures, start=1)]
        for place, figures in of.items()
    }


def _anchors(names: Sequence[str]) -> list[str]:
    """A name for each section that suits an id and a file, all different."""
    made: list[str] = []
    taken = {"says", "teachers", "ran", "cost", "failures", "progress"}
    for name in names:
        anchor = stem = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:40] or "section"
        n = 1
        while anchor.lower() in taken:
            n += 1
            anchor = f"{stem}-{n}x"
        taken.add(anchor.lower())
        made.append(anchor)
    return made


def _count_verdicts(claims: Sequence[ClaimRow]) -> list[tuple[str, int]]:
    counts = Counter(claim.verdict for claim in claims)
    return [
        (verdict, counts[verdict])
        for verdict in dict.fromkeys([*SYMBOLS, *counts])
        if counts[verdict]
    ]


@cache
def sort_script() -> str:
    return (TEMPLATES / "sort.js").read_text().strip()


def script_hash() -> str:
    """Of the one script that a page may run, as its content security policy names it."""
    return b64encode(hashlib.sha256(sort_script().encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """Every text of the page passes here before it is escaped."""
    return legible(value) if type(value) is str else value


@cache
def template(name: str) -> jinja2.Template:
    """A page's template by its file name; what it shows is escaped and made legible."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "probability": probability,
        "with_interval": with_interval,
        "duration": duration,
        "moment": moment,
        "symbol": symbol,
        "brief": brief,
        "is_text": is_text,
        "numbers_of": numbers_of,
        "safe_script": Markup,
    }
    environment.tests["estimate"] = lambda value: isinstance(value, Estimate)
    environment.tests["of_seeds_alone"] = of_seeds_alone
    environment.globals["dash"] = DASH
    return environment.get_template(name)


def write_whole(path: Path, content: bytes) -> None:
    """Whoever reads the file meanwhile finds the old content or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
