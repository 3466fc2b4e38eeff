"""A study's findings as tables for a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from weakteach.report.figures import places_of
from weakteach.report.words import brief, in_short, is_text, probability, symbol
from weakteach.results.findings import Comparison, Findings, Section, TableOf, Value

TERMINAL_WIDTH, TERMINAL_COLUMNS = 100, 6


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
