"""What a run of ``label`` says of its teacher, and what it refuses."""

import io
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from statsmodels.stats.proportion import proportion_confint

from weakteach.artifacts.store import Store
from weakteach.cli import app
from weakteach.evaluation.teaching import Seen
from weakteach.models.size import context_of
from weakteach.models.spec import find_model
from weakteach.preferences.sources import data_source
from weakteach.run.labeling import report_seen, report_share
from weakteach.run.terminal import run
from weakteach.statistics.estimate import Estimate
from weakteach.steps.data import Pairs
from weakteach.study.policies import tokenizers_of

WORSE = ": worse than chance: are the choices inverted?"
CHANCE = ": not distinguishable from chance"


def printed(tell, *arguments):
    console = Console(file=io.StringIO(), width=300)
    tell(console, *arguments)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("agreed", "ending"),
    [(20, WORSE), (40, WORSE), (41, CHANCE), (50, CHANCE), (59, CHANCE), (60, ""), (80, "")],
)
def test_a_share_is_judged_by_its_interval(agreed, ending):
    low, high = proportion_confint(agreed, 100, method="wilson")
    text = printed(report_share, "Accuracy", Estimate(agreed / 100, low, high, prompts=100))
    assert text == (
        f"Accuracy: {agreed}.0% (95 % interval {low:.1%} to {high:.1%}, 100 pairs){ending}\n"
    )
    assert (ending == WORSE) == (high < 0.5)
    assert (ending == "") == (low > 0.5)


def test_pairs_that_the_teacher_has_seen_are_counted_and_left_out():
    assert printed(report_seen, "many.jsonl", Seen(9, 3, 2, 1, None)) == (
        "many.jsonl: 3 are pairs that the teacher learned from, 2 have a prompt that it learned "
        "from, 1 are near-duplicates of such pairs: labeled, but left out of the agreement\n"
    )
    agreement = Estimate(0.1, 0.05, 0.2, prompts=100)
    assert printed(report_seen, "many.jsonl", Seen(100, 0, 0, 0, agreement)) == (
        "Agreement with the human choices of the unlabeled file: 10.0% (95 % interval 5.0% to "
        f"20.0%, 100 pairs){WORSE}\n"
    )


def test_pairs_longer_than_the_model_reads_are_quarantined_before_the_work(
    tmp_path, capsys, monkeypatch
):
    """Whatever --max-tokens says; the run ends where none is left."""
    monkeypatch.setenv("COLUMNS", "200")
    cases = Path(__file__).parents[1] / "preferences/cases"
    words = [
        *("label", "--labeled", cases / "longer-than-context.jsonl"),
        *("--unlabeled", cases / "base-unlabeled-with-choices.jsonl", "--max-tokens", "4096"),
        *("--teacher", "opt-45k", "--storage", tmp_path / "store", "--out", tmp_path / "out"),
    ]
    assert run(app, list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert "--max-tokens 4096, and opt-45k reads at most 512" in out
    assert "60 of 60" in out
    assert "none of its 60 pairs can be read by opt-45k" in err
    assert "give another --teacher" in err
    quarantine = pq.read_table(tmp_path / "out/quarantine.parquet").to_pylist()
    assert len(quarantine) == 60
    for row in quarantine:
        assert row["reason"] == "too long"
        assert re.fullmatch(r"\d+ tokens, at most 512", row["detail"])


def test_a_few_pairs_longer_than_the_model_reads_leave_the_others(tmp_path):
    cases = Path(__file__).parents[1] / "preferences/cases"
    files = [cases / f"{name}.jsonl" for name in ("longer-than-context", "base-labeled")]
    model = find_model("opt-45k")
    source = data_source([str(file) for file in files])
    pairs = Pairs(source, tokenizers_of(model), min(4096, context_of(model)))
    counts = pairs.write(Store(tmp_path), tmp_path)
    assert counts == {"rows": 120, "pairs": 60, "choices": 60, "quarantined": 60}
