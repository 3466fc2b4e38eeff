"""What a sweep says where a teacher is not told from the accuracy of its gate; what trains and what
labels is replaced by labels that are known."""

import html
import re
from dataclasses import replace
from fractions import Fraction

import pyarrow.parquet as pq
from test_label_outcomes import known_labels

from weakteach.artifacts.computing import obtain_each
from weakteach.artifacts.store import Store
from weakteach.report.publish import publish_results
from weakteach.run.failures import reason
from weakteach.steps.labels import WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.study.experiments import size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.manifest import StudyInfo, make_manifest
from weakteach.study.presets import EMBEDDED


def test_the_report_says_whose_arm_the_gate_ended_and_why(tmp_path, monkeypatch):
    for kind in (Sft, Dpo):
        monkeypatch.setattr(kind, "compute", lambda self, workspace: {"pairs": 1})
    monkeypatch.setattr(WeakLabels, "compute", known_labels)
    ranges = replace(EMBEDDED.first, fractions=(Fraction(1, 2),), seeds=(0,))
    choices = Choices(data="world:400", test_pairs=60, gold=("none",), gate=0.9)
    study = size_grid(make_grid(EMBEDDED, ranges, choices))
    store = Store(tmp_path)
    outcomes = obtain_each(store, {measure.target: None for measure in study.measures})
    errors = {step: one for step, one in outcomes.items() if isinstance(one, Exception)}
    failures = {step.fingerprint: reason(error) for step, error in errors.items()}
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)
    manifest = replace(make_manifest(info, (study,)), failures=failures)
    findings = publish_results(store, manifest, final=True)

    ((arm, roles, why),) = findings.failures
    assert (arm, roles) == (study.measures[0].arm, "weak labels")
    assert re.fullmatch(
        r"stopped by the gate: opt-45k agrees with \d\d\.\d% of held-out human choices \(95 % "
        r"interval \d\d\.\d% to \d\d\.\d%\), which is not told from 90%",
        why,
    )
    assert (findings.arms_done, findings.arms_failed) == (0, 1)
    told = [one.sentence for one in findings.answers if one.verdict == "failed"]
    assert told == [f"Failed in 1 arm, weak labels: {why}."]
    page = (tmp_path / "studies/s/report.html").read_text()
    rows = [
        row
        for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
        if all(html.escape(words) in row for words in (arm, roles, why))
    ]
    assert len(rows) == 1
    # Of the teacher and of students of human labels the numbers are there.
    results = pq.read_table(tmp_path / "studies/s/results.parquet").to_pylist()
    status = {(row["role"], row["measure"]): row["status"] for row in results}
    assert status["human", "student_accuracy"] == status["weak", "teacher_accuracy"] == "done"
    (failed,) = [row for row in results if row["status"] == "failed"]
    assert (failed["role"], failed["error"]) == ("weak", why)
