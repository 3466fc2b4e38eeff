"""The table of a study's results, and the folder where they are published."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from weakteach.artifacts.store import Store
from weakteach.report.page import write_report
from weakteach.results.analysis import analyze
from weakteach.results.findings import Findings
from weakteach.results.outcomes import Outcomes
from weakteach.results.schema import RESULTS_SCHEMA
from weakteach.study.manifest import MANIFEST, Manifest, Measure, manifest_text, study_folder

Number = tuple[str, float | None, float | None, int | None]


def collect(store: Store, manifest: Manifest) -> pa.Table:
    """One row per number measured, from the artifacts that exist; see RESULTS_SCHEMA."""
    outcomes = Outcomes(store)
    experiments: dict[Measure, list[str]] = {}
    for part in manifest.experiments:
        for measure in part.measures:
            experiments.setdefault(measure, []).append(part.id)
    rows = [
        {"experiments": ", ".join(of), **row}
        for measure, of in experiments.items()
        for row in _rows(measure, outcomes, manifest.failures.get(measure.fingerprint))
    ]
    return pa.Table.from_pylist(rows, RESULTS_SCHEMA)


def _rows(measure: Measure, outcomes: Outcomes, error: str | None) -> list[dict[str, Any]]:
    if measure.kind in ("label_gap", "examples"):  # other views of a step that has its own rows
        return []
    facts = outcomes.facts(measure)
    common = {
        "arm": measure.arm,
        **asdict(measure.setting),
        "seed": measure.seed,
        "role": measure.role,
        "of": measure.of,
        "step": measure.step,
        "fingerprint": measure.fingerprint,
        "status": "failed" if error else "pending" if facts is None else "done",
        "error": error,
    }
    numbers = numbers_of(measure.kind, facts) if facts else [(measure.kind, None, None, None)]
    return [
        {**common, "measure": name, "value": value, "se": se, "n": n}
        for name, value, se, n in numbers
    ]


def numbers_of(kind: str, facts: dict[str, Any]) -> list[Number]:
    """Name, value, standard error over prompts or pairs where it is known, and their number."""
    match kind:
        case "reward":
            garbage = facts.get("garbage")
            found: list[Number] = [("gold_reward", facts["mean"], facts["se"], facts["rows"])]
            return found + ([] if garbage is None else [("garbage", garbage, None, facts["rows"])])
        case "accuracy":
            return [_share("student_accuracy", facts["agreed"], facts["compared"])]
        case "agreement" | "teacher_accuracy":
            return _agreement(kind, facts)
        case "label_gold":
            return [
                (f"{name}_gold", facts[name], None, facts["rows"])
                for name in ("chosen", "rejected")
            ]
        case "verdicts":
            decided = facts["wins"] + facts["ties"] + facts["losses"]
            won = facts["wins"] + facts["ties"] / 2
            return [
                _share("win_rate", won, decided),
                _share("flips", facts["flips"], facts["repeats_compared"]),
                ("longer", facts["longer"], None, facts["longer_compared"]),
            ]
        case "consistency":
            return [("consistency", facts["consistency"], None, facts["contests"])]
        case "similarity":
            return [("similarity", facts["mean"], None, facts["rows"])]
        case _:
            return []


def _agreement(kind: str, facts: dict[str, Any]) -> list[Number]:
    compared = facts["compared"]
    found = [_share(kind, facts["agreed"], compared)]
    if facts["weak_right"] is not None:
        found.append(_share(f"{kind}_gold", facts["weak_right"], compared))
        if kind == "agreement" and compared > facts["agreed"]:
            mismatches = compared - facts["agreed"]
            found.append(_share("gold_with_weak", facts["gold_with_weak"], mismatches))
    return found


def _share(name: str, successes: float, n: int) -> Number:
    share = successes / n if n else float("nan")
    return name, share, (share * (1 - share) / n) ** 0.5 if n else None, n


def publish_results(store: Store, manifest: Manifest, final: bool) -> Findings:
    """Write results.parquet, study.json, report.html and the figures, each whole at any time."""
    findings = analyze(store, manifest)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(collect(store, manifest), folder / "results.parquet")
        (folder / MANIFEST).write_text(manifest_text(manifest))
        write_report(folder, manifest.info, findings, final)
        target = study_folder(store, manifest.info.name)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = f"{target}/{file.relative_to(folder).as_posix()}"
            parent, _, base = place.rpartition("/")
            store.filesystem.create_dir(parent, recursive=True)
            partial = f"{parent}/.{base}.partial"
            fs.copy_files(str(file), partial, destination_filesystem=store.filesystem)
            store.filesystem.move(partial, place)
    return findings
