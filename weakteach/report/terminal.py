"""A study's findings for a terminal: its answer in words, then tables."""

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from weakteach.report.marks import places_of
from weakteach.report.words import brief, in_short, is_text, legible, symbol, tally, told_once
from weakteach.results.findings import Answer, Findings, MeansFigure, Section, TableOf, Value

TERMINAL_WIDTH, TERMINAL_COLUMNS = 100, 6


def terminal_tables(findings: Findings) -> list[RenderableType]:
    """What a terminal shows: how much is decided, then the answers, each on lines of its own, then
    for each section a table of values ± half the width of their 95% interval. Nothing is wider
    than TERMINAL_WIDTH."""
    decided = tally(findings)
    shown: list[RenderableType] = [Text(decided, style="bold")] if decided else []
    shown += [_answers(findings.answers)] if findings.answers else []
    shown += [
        _terminal_table(section.heading, table)
        for section in findings.sections
        if (table := _main_table(section)) is not None
    ]
    return [Constrain(one, TERMINAL_WIDTH) for one in shown]


def _answers(answers: tuple[Answer, ...]) -> Table:
    """The sentence of each answer, after the symbol of its verdict."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for answer in answers:
        sentence = " ".join(legible(answer.sentence).split())
        table.add_row(Text(symbol(answer.verdict)), Text(sentence))
    table.add_row()
    return table


def _main_table(section: Section) -> TableOf | None:
    """The first table of a section, or else the means of its first comparison, side by side."""
    if section.tables:
        return section.tables[0]
    for figure in section.figures:
        if isinstance(figure, MeansFigure):
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


def _terminal_table(title: str, given: TableOf) -> Group:
    # Text, because names may hold what rich would read as markup.
    shown = told_once(given)
    heading = f"{title} · {shown.title}" if shown.title else title
    left_out = len(shown.columns) - TERMINAL_COLUMNS
    below = [shown.note.removesuffix(given.note).strip()]
    if left_out > 0:
        below.append(f"{left_out} more columns are in the report")
    table = Table(
        caption=Text("\n".join(brief(line) for line in below if line)),
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
