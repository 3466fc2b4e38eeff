"""The published table of results, and a study published whole from artifacts made by hand."""

import pyarrow.parquet as pq
import pytest
from synthetic import Bed, experiment

from weakteach.report.publish import publish_results
from weakteach.results.table import RESULTS_SCHEMA, collect, numbers_of
from weakteach.study.manifest import Manifest, StudyInfo

INFO = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)


def study(bed):
    shared = bed.reward("human", 0, {"a": 1.0, "b": 3.0})
    failed = bed.pending("reward", "weak", 1)
    first = experiment("E1", "student", shared, bed.pending("reward", "weak", 0), failed)
    second = experiment("E16", "labels", shared)
    return Manifest(INFO, (first, second), (), {failed.fingerprint: "no memory"})


def test_a_row_is_a_number_with_its_status_and_the_experiments_that_show_it(tmp_path):
    bed = Bed(tmp_path)
    table = collect(bed.store, study(bed))
    assert table.schema.equals(RESULTS_SCHEMA, check_metadata=True)
    human, pending, failed = table.to_pylist()
    assert (human["experiments"], human["value"], human["n"]) == ("E1, E16", 2.0, 2)
    assert (human["status"], pending["status"], failed["status"]) == ("done", "pending", "failed")
    assert failed["error"] == "no memory"
    assert pending["value"] is None


def test_shares_of_pairs_have_the_error_of_their_step_and_those_of_contests_their_binomial_one():
    facts = {"agreed": 3, "compared": 4, "agreed_se": 0.4}
    assert numbers_of("accuracy", facts) == [("student_accuracy", 0.75, 0.4, 4)]
    facts.pop("agreed_se")  # as an older version left it out
    assert numbers_of("accuracy", facts) == [("student_accuracy", 0.75, None, 4)]
    names = ("ties", "flips", "longer", "longer_compared")
    facts = {"wins": 3, "losses": 1, "repeats_compared": 4, **dict.fromkeys(names, 0)}
    won = numbers_of("verdicts", facts)[0]
    assert won == ("win_rate", 0.75, pytest.approx((0.75 * 0.25 / 4) ** 0.5), 4)


def test_a_study_is_published_from_its_manifest_alone(tmp_path):
    bed = Bed(tmp_path)
    findings = publish_results(bed.store, study(bed), final=True)
    folder = tmp_path / "studies" / "s"
    assert pq.read_table(folder / "results.parquet").num_rows == 3
    page = (folder / "report.html").read_text()
    assert "no memory" in page
    assert (findings.arms_done, findings.arms_failed, findings.arms_pending) == (0, 1, 1)
