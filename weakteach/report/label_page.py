"""The verdict of a ``label`` run: ``report.html`` with its figures, and ``verdict.json``."""

import json
from dataclasses import asdict
from pathlib import Path

from weakteach.evaluation.teaching import to_json
from weakteach.report.figures import draw
from weakteach.report.page import script_hash, sort_script, template, write_whole
from weakteach.report.styles import styles_of
from weakteach.results.label_findings import LabelRun, label_figures, label_tables

ANSWERS = {
    "use": "Use it",
    "confident": "Use the confident part",
    "collect": "Collect more labels",
    "other": "Try another teacher",
}


def write_label_report(folder: Path, run: LabelRun) -> tuple[Path, ...]:
    """Write ``report.html``, ``figures/verdict-<n>.png`` and ``verdict.json`` into a local folder;
    return their places in the folder. No reader ever finds a file half written.

    ``verdict.json`` holds ``advice`` (``gate.Advice``), ``routing`` (``gate.PricedRoute``),
    ``facts`` (``teaching.TeacherFacts``) and ``seen`` (``teaching.Seen``) by the names of their
    fields, and the names and counts of the run. What is not known is absent or null. The same run
    gives the same bytes.
    """
    figures = label_figures(run)
    styles = styles_of(figures)
    drawings = [draw(figure, f"verdict-{n}", styles) for n, figure in enumerate(figures, start=1)]
    page = template("label.html").render(
        run=run,
        answer=ANSWERS[run.advice.kind],
        drawn_figures=figures,
        figures={"verdict": drawings},
        tables=label_tables(run),
        script=sort_script(),
        script_hash=script_hash(),
    )
    files = {
        Path("figures") / f"verdict-{n}.png": drawing.png
        for n, drawing in enumerate(drawings, start=1)
    }
    files[Path("verdict.json")] = verdict_json(run).encode()
    files[Path("report.html")] = page.encode()
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        write_whole(folder / file, content)
    return tuple(files)


def verdict_json(run: LabelRun) -> str:
    """The text of ``verdict.json``; see ``write_label_report``."""
    value = {
        "labeled": run.labeled,
        "unlabeled": run.unlabeled,
        "to_label": run.to_label,
        "asked": run.asked,
        "advice": {k: v for k, v in asdict(run.advice).items() if v is not None},
        "routing": [
            {k: v for k, v in asdict(route).items() if v is not None} for route in run.routes
        ],
        "facts": to_json(run.facts),
    }
    if run.price is not None:
        value["price"] = run.price
    if run.seen is not None:
        value["seen"] = to_json(run.seen)
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
