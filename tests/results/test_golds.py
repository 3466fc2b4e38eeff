"""What golds are worth is told first, in terminal and report: agreement with held-out humans, and
the responses that they could not read to their end."""

import io
from fractions import Fraction

import pyarrow as pa
import pytest
from rich.console import Console
from synthetic import GOLD, Bed, experiment

from weakteach.report.page import write_report
from weakteach.report.terminal import terminal_tables
from weakteach.results.analysis import analyze
from weakteach.results.table import numbers_of
from weakteach.steps.evaluation import Agreement
from weakteach.steps.labels import GoldLabels
from weakteach.study.experiments import gold_models, size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.manifest import Manifest, StudyInfo
from weakteach.study.presets import EMBEDDED, PAPER, Ranges

INFO = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)
ONE = Ranges(("opt-45k",), (Fraction(1, 2),), (0, 1), (0.1,))


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def accuracy(bed, agreed, compared, of=GOLD, seeds=(0,), **setting):
    """One step, which every seed measures."""
    ids, weak = [f"p{n}" for n in range(compared)], [1] * agreed + [2] * (compared - agreed)
    table = pa.table({"pair_id": ids, "prompt_id": ids, "weak": weak, "human": [1] * compared})
    facts = {"agreed": agreed, "compared": compared}
    made = bed.put("Agreement", facts, {"compared": table})
    return [
        bed.measure("gold_accuracy", "gold", seed, "Agreement", made, of, **setting)
        for seed in seeds
    ]


def findings(bed, *measures, steps=()):
    manifest = Manifest(INFO, (experiment("sizes", "fraction", *measures),), tuple(steps))
    return analyze(bed.store, manifest)


def told(found):
    return [one.sentence for one in found.answers if one.verdict == "told"]


def test_each_gold_tells_its_agreement_once_with_wilsons_interval(bed):
    measures = [
        *accuracy(bed, 71, 100, "org/gold", seeds=(0, 1, 2)), *accuracy(bed, 53, 100, "other"),
    ]  # fmt: skip
    assert told(findings(bed, *measures)) == [
        "The gold “org/gold” agrees with held-out humans on 71.0% [61.5%, 79.0%] of 100 pairs.",
        "The gold “other” agrees with held-out humans on 53.0% [43.3%, 62.5%] of 100 pairs, which "
        "is not told from chance.",
    ]
    assert numbers_of("gold_accuracy", {"agreed": 3, "compared": 4, "agreed_se": 0.2}) == [
        ("gold_accuracy", 0.75, 0.2, 4)
    ]


def test_golds_of_several_domains_name_theirs(bed):
    measures = accuracy(bed, 71, 100) + accuracy(bed, 9, 10, domain="posts")
    assert [one.rpartition("pairs")[2] for one in told(findings(bed, *measures))] == [
        " of world.", " of posts.",
    ]  # fmt: skip
    assert told(findings(bed, bed.pending("gold_accuracy", "gold", 0))) == []


def scored(bed, kind, label, **facts):
    gold = {"class": "RewardModel", "model": {"class": "Model", "label": label}}
    return kind, bed.put(kind, facts, {}, parameters={"gold": gold})


def test_responses_that_were_cut_are_counted_by_gold_over_all_steps(bed):
    steps = [
        scored(bed, "GoldReward", "org/gold", cut=10, rows=231),
        scored(bed, "GoldReward", "org/gold", cut=2, rows=77, responses=231),
        scored(bed, "GoldReward", "org/gold", cut=0, rows=38),
        scored(bed, "GoldReward", "org/long", cut=0, rows=231),
        scored(bed, "GoldLabels", "org/gold", cut=3, rows=500),
        scored(bed, "GoldLabels", "org/exact", rows=500),
        ("GoldReward", "pending"),
    ]
    assert told(findings(bed, steps=steps)) == [
        "12 of 500 responses were too long for the gold model “org/gold” and were cut.",
        "3 of 1,000 responses of pairs were too long for the gold model “org/gold” and were cut.",
    ]


def test_terminal_and_report_tell_of_golds_before_the_answers(bed, tmp_path):
    seeds = [bed.reward(role, 0, {"a": 1.0, "b": 2.0}) for role in ("human", "weak")]
    cut = scored(bed, "GoldReward", "org/gold", cut=12, rows=462)
    found = findings(bed, *accuracy(bed, 71, 100), *seeds, steps=[cut])
    console = Console(width=300, record=True, file=io.StringIO())
    for table in terminal_tables(found):
        console.print(table)
    write_report(tmp_path / "page", INFO, found, final=True)
    for shown in (console.export_text(), (tmp_path / "page" / "report.html").read_text()):
        text = " ".join(shown.split())
        agreement = text.index("agrees with held-out humans on 71.0%")
        were_cut = text.index("12 of 462 responses were too long")
        assert agreement < were_cut < text.index("Weak labels and human ones")


def test_every_gold_of_a_study_is_measured_once_on_the_test_part_before_students():
    grid = make_grid(PAPER, ONE, Choices(), resolve=False)
    golds, test = grid.data.golds, grid.data.held_out.test
    for experiment_of, expected in ((size_grid, golds[:1]), (gold_models, golds)):
        measures = experiment_of(grid).measures
        found = {m.of: m.target for m in measures if m.kind == "gold_accuracy"}
        assert found == {str(one): Agreement(GoldLabels(test, one)) for one in expected}
        assert measures[0].kind == "gold_accuracy"
    embedded = make_grid(EMBEDDED, ONE, Choices(), resolve=False)
    of = {m.of for m in size_grid(embedded).measures if m.kind == "gold_accuracy"}
    assert of == {GOLD}
    without = make_grid(EMBEDDED, ONE, Choices(gold=("none",)), resolve=False)
    assert not [m for m in size_grid(without).measures if m.kind == "gold_accuracy"]
