"""A study's findings on one page: ``report.html`` and its figures."""

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

from weakteach.report.figures import Drawing, draw, numbers_of
from weakteach.report.styles import styles_of
from weakteach.report.words import (
    SYMBOLS,
    brief,
    duration,
    is_text,
    legible,
    moment,
    probability,
    symbol,
    tally,
    told_once,
)
from weakteach.results.findings import NUMBERED, ClaimRow, Findings, Value
from weakteach.results.numbers import DASH, number, with_interval, with_kept
from weakteach.statistics.estimate import Estimate
from weakteach.study.manifest import StudyInfo

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    folder: Path, study: StudyInfo, findings: Findings, final: bool
) -> tuple[Path, ...]:
    """Write ``report.html`` and ``figures/<experiment>-<n>.png`` into a local folder; return their
    places in the folder. No reader ever finds a file half written.

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


def of_seeds_alone(value: Value) -> bool:
    """Whether an interval is known, but says nothing of seeds that were not tried."""
    if not isinstance(value, Estimate) or value.covers_seeds or not value.seeds:
        return False
    return bool(with_interval(value)[1])


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
    """Names for the sections, all different, that can stand in ids and in names of files."""
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
    """The hash of the one script that a page may run, for its content security policy."""
    return b64encode(hashlib.sha256(sort_script().encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """Make a text legible: every text of the page passes through here before it is escaped."""
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
        "with_kept": with_kept,
        "duration": duration,
        "moment": moment,
        "symbol": symbol,
        "brief": brief,
        "is_text": is_text,
        "numbers_of": numbers_of,
        "told_once": told_once,
        "tally": tally,
        "safe_script": Markup,
    }
    environment.tests["estimate"] = lambda value: isinstance(value, Estimate)
    environment.tests["numbered"] = NUMBERED.fullmatch
    environment.tests["of_seeds_alone"] = of_seeds_alone
    environment.globals["dash"] = DASH
    return environment.get_template(name)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it meanwhile finds the old content or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
