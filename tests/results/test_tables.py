"""The tables and figures of experiments and teachers, from artifacts with known numbers."""

import numpy as np
import pytest
from synthetic import Bed, experiment

from weakteach.report.words import in_short
from weakteach.results.analysis import analyze, table_of
from weakteach.results.cells import cells_of, minus_human
from weakteach.results.findings import Scatter
from weakteach.results.numbers import with_kept
from weakteach.results.published import WEAK_HUMAN, published_table
from weakteach.results.teachers import examples, label_tables, teacher_figures, teacher_table
from weakteach.statistics.crossed import mean
from weakteach.study.manifest import Manifest, StudyInfo

PROMPTS = [f"q{n:02}" for n in range(20)]


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def manifest(*experiments):
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)
    return Manifest(info, experiments, ())


def numbers(level, but=()):
    return {p: level + n for n, p in enumerate(PROMPTS) if p not in but}


def test_cells_have_means_of_the_shared_prompts_and_paired_differences(bed):
    one = experiment(
        "E16",
        "labels",
        bed.reward("human", 0, numbers(0)),
        bed.reward("human", 1, numbers(1, but=["q00"])),
        bed.reward("weak", 0, numbers(3, but=["q19"])),
        bed.reward("weak", 1, numbers(5)),
        bed.pending("reward", "weak", 2),
    )
    human, weak = cells_of(one, bed.outcomes, ["reward"])
    assert (human.seeds, human.pending, weak.seeds, weak.pending) == ((0, 1), 0, (0, 1), 1)
    assert human.estimate.value == pytest.approx(10 + 0.5)  # mean of 1 to 19, and of the seeds
    difference = minus_human(weak, [human, weak])
    assert difference.value == pytest.approx((3 + 4) / 2)
    assert (difference.seeds, difference.prompts, difference.left_out) == (2, 18, 2)
    table = table_of(one, "reward", [human, weak])
    assert table.columns[-1] == "seeds, prompts"
    assert [row[-1] for row in table.rows] == ["2, 19 of 20", "2, 19 of 20"]
    assert [row[1].left_out for row in table.rows] == [0, 0]  # which the last column tells
    assert table.rows[1][2] == difference


def test_a_cell_whose_seeds_share_too_little_is_a_row_with_its_reason(bed):
    values = [dict.fromkeys(PROMPTS[5 * s : 5 * s + 10], 1.0) for s in (0, 1)]
    one = experiment("E1", "student", *(bed.reward("weak", s, values[s]) for s in (0, 1)))
    found = analyze(bed.store, manifest(one))
    (row,) = found.sections[0].tables[0].rows
    assert row[1] is None
    assert "share 5 of 15" in row[-1]


def test_a_win_rate_leaves_out_prompts_without_a_verdict(bed):
    answers = {"a": [(1, 1)], "b": [(2, 2)], "c": [(1, 2)], "d": [(None, 1)], "e": [(1, 1)]}
    one = experiment("E4", "student", bed.verdicts("verdicts", "weak", 0, answers))
    (cell,) = cells_of(one, bed.outcomes, ["verdicts"])
    assert cell.estimate.value == (1 + 0 + 0.5 + 1) / 4
    assert with_kept(cell.estimate) == "4 of 5 prompts"


@pytest.mark.parametrize("kind", ["verdicts", "consistency"])
def test_a_judge_that_leaves_most_prompts_undecided_has_no_rate(bed, kind):
    sure = {f"a{n:02}": [(1, 2), (1, 2)] for n in range(40)}
    unsure = {f"b{n:02}": [(None, 1), (2, None)] for n in range(60)}
    one = experiment("E4", "student", bed.verdicts(kind, "weak", 0, {**sure, **unsure}))
    (cell,) = cells_of(one, bed.outcomes, [kind])
    assert cell.estimate is None
    ((*_, size),) = table_of(one, kind, [cell]).rows
    assert "has an outcome of 40 of 100 prompts or pairs, too few to compare" in size


def test_consistency_is_the_share_of_the_commonest_verdict_of_judged_contests(bed):
    answers = {"a": [(1, 2), (1, 2), (1, 1), (2, 2)], "b": [(1, 1)] * 4}
    one = experiment("E10", "labels", bed.verdicts("consistency", "matched", 0, answers))
    (cell,) = cells_of(one, bed.outcomes, ["consistency"])
    assert cell.estimate.value == pytest.approx((0.75 + 1) / 2)


def labeled(first, count, wrong, gold=1):
    """Pairs of which the first ``wrong`` are labeled against the human, whose choice is 1."""
    return {
        f"p{n:03}": (2 if n < first + wrong else 1, 1, gold) for n in range(first, first + count)
    }


def test_the_table_of_teachers_joins_seeds_by_pair(bed):
    complete = labeled(0, 20, 5)
    lacking = {key: row for key, row in labeled(0, 20, 10).items() if key != "p007"}
    measures = [
        bed.compared("teacher_accuracy", 0, complete),
        bed.compared("teacher_accuracy", 1, lacking),
        bed.compared("agreement", 0, labeled(0, 20, 4)),
        bed.compared("agreement", 1, labeled(10, 20, 8)),
    ]
    (table,) = teacher_table(measures, bed.outcomes)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    # Without p007, which one seed lacks: 14 of 19 and 10 of 19 are right.
    assert row["accuracy against humans"].value == pytest.approx((14 / 19 + 10 / 19) / 2)
    assert row["accuracy against gold"].value == pytest.approx((14 / 19 + 10 / 19) / 2)
    assert row["agreement between seeds"].value == pytest.approx(15 / 19)
    for column in ("agreement between seeds", "accuracy against humans", "accuracy against gold"):
        assert with_kept(row[column]) == "19 of 20 prompts"
    assert row["agreement on unlabeled"].value == pytest.approx((16 / 20 + 12 / 20) / 2)
    assert row["agreement on unlabeled"].prompts == 30
    # Confidence 0.2 says 60% throughout; 15 of 20 and 10 of 19 are right.
    assert row["calibration error (ECE)"] == pytest.approx((0.15 + abs(10 / 19 - 0.6)) / 2)


def test_teachers_of_seeds_that_share_too_few_pairs_say_so(bed):
    measures = [bed.compared("teacher_accuracy", s, labeled(10 * s, 20, 5)) for s in range(3)]
    (table,) = teacher_table(measures, bed.outcomes)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    why = "the 3 seeds share 0 of 40 prompts or pairs, too few to compare"
    assert row["agreement between seeds"] == row["accuracy against humans"] == why


def test_a_difference_to_human_labels_that_is_refused_says_why(bed):
    half = PROMPTS[:10]
    one = experiment(
        "E16",
        "labels",
        bed.reward("human", 0, numbers(0)),
        bed.reward("weak", 0, numbers(3, but=half)),
        bed.reward("gold", 0, numbers(3, but=["q00"])),
    )
    cells = cells_of(one, bed.outcomes, ["reward"])
    human, weak, gold = table_of(one, "reward", cells).rows
    why = "what is compared share 10 of 20 prompts or pairs, too few to compare"
    assert (human[2:4], weak[2:4]) == ((None, None), (why, None))
    assert in_short(gold[2]).endswith(", 19 of 20 prompts")
    published = published_table("E1", cells, ())
    assert published.rows[-1][-1] == why


def test_a_difference_of_fewer_seeds_than_the_mean_says_so(bed):
    humans = [bed.reward("human", seed, numbers(0)) for seed in (0, 1)]
    weak = [bed.reward("weak", seed, numbers(seed)) for seed in (0, 1, 2)]
    one = experiment("E16", "labels", *humans, *weak)
    rows = table_of(one, "reward", cells_of(one, bed.outcomes, ["reward"])).rows
    assert [row[-1] for row in rows] == ["2, 20", "3 (2 in both), 20"]


def test_reliability_counts_a_pair_once_whatever_the_number_of_seeds(bed):
    alone = [bed.compared("teacher_accuracy", 0, labeled(0, 40, 10))]
    thrice = [bed.compared("teacher_accuracy", seed, labeled(0, 40, 10)) for seed in range(3)]
    (one, _), (three, _) = (teacher_figures(m, bed.outcomes) for m in (alone, thrice))
    assert three.bins[0][1].value == one.bins[0][1].value == 0.75
    assert three.bins[0][1].low == pytest.approx(one.bins[0][1].low)
    assert three.bins[0][2] == 3 * one.bins[0][2]


def test_gold_of_labels_is_not_narrower_because_seeds_share_pairs(bed):
    draws = np.random.default_rng(3)
    sides = draws.normal(0, 1, (20, 2)).tolist()
    golds = {p: (a, b) for p, (a, b) in zip(PROMPTS, sides, strict=True)}
    measures = [m for seed in range(3) for m in bed.label_gold("human", seed, golds)]
    (table,) = label_tables(experiment("E8", "labels", *measures), bed.outcomes)
    ((_, chosen, rejected, difference, pairs),) = table.rows
    expected = mean(np.array([[a for a, _ in golds.values()]]))
    assert (chosen.value, chosen.low) == pytest.approx((expected.value, expected.low))
    assert difference.value == pytest.approx(chosen.value - rejected.value)
    assert pairs == 20


def test_whom_gold_sides_with_is_a_mean_over_seeds_of_their_own_mismatches(bed):
    first = {"a": (2, 1, 2), "b": (2, 1, 1), "c": (1, 1, 1), "d": (1, 1, 1)}
    second = {"a": (2, 1, 2), "e": (1, 2, 1), "f": (1, 2, 2), "g": (1, 2, 2)}
    measures = [bed.compared("agreement", s, rows) for s, rows in enumerate((first, second))]
    (table,) = label_tables(experiment("E8", "labels", *measures), bed.outcomes)
    ((agreement, sides, pairs, mismatches),) = table.rows
    assert agreement.value == pytest.approx((2 / 4 + 0 / 4) / 2)
    assert sides.value == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (pairs, mismatches) == (7, 5)


def test_the_published_table_shows_ours_below(bed):
    one = experiment(
        "E1",
        "student",
        *(bed.reward("human", s, numbers(0), student="opt-45k") for s in (0, 1)),
        *(bed.reward("weak", s, numbers(1), student="opt-45k") for s in (0, 1)),
    )
    table = published_table("E1", cells_of(one, bed.outcomes, ["reward"]), ())
    *printed, ours = table.rows
    assert [row[0] for row in printed] == ["published"] * len(WEAK_HUMAN["E1"][1])
    assert ours[:2] == ("ours", "opt-45k")
    assert [value.value for value in ours[2:]] == pytest.approx([10.5, 9.5, 1.0])
    assert printed[0][-1] == 0.21


def test_the_published_table_of_views_lists_ours_by_role(bed):
    one = experiment("E7", "labels", bed.reward("matched", 0, numbers(2)))
    table = published_table("E7", cells_of(one, bed.outcomes, ["reward"]), ())
    assert table.rows[-1][1] == "weak labels, matched pairs only"
    assert table.rows[-1][2].value == 11.5
    assert published_table("grid", (), ()) is None


def test_a_scatter_pairs_responses_to_the_same_prompt(bed):
    x = {p: n / 20 for n, p in enumerate(PROMPTS) if p != "q02"}
    y = {p: n / 10 for n, p in enumerate(PROMPTS) if p != "q15"}
    one = experiment("E13", "labels", bed.similarity("human", 0, x), bed.similarity("weak", 0, y))
    found = analyze(bed.store, manifest(one))
    (figure,) = [f for f in found.sections[0].figures if isinstance(f, Scatter)]
    assert figure.y == pytest.approx([2 * value for value in figure.x])
    assert "18 prompts; 2 left out" in figure.caption


def test_examples_of_a_study_without_any_are_none(bed):
    one = experiment("E9", "labels", bed.pending("examples", "weak", 0))
    assert examples(one, bed.outcomes) == ()


@pytest.mark.parametrize(
    ("id", "asked", "arms"),
    [
        ("E1", [("reward", role, 0) for role in ("base", "human", "weak")], 1),
        ("E1", [(kind, "weak", 1) for kind in ("reward", "agreement", "teacher_accuracy")], 1),
        (
            "E8",
            [("label_gold", "weak", 1), ("label_gap", "weak", 1), ("label_gold", "human", 2)],
            2,
        ),
        ("E9", [("examples", "weak", 1), ("examples", "weak", 2)], 2),
        ("E1", [], 0),
    ],
)
def test_a_section_counts_each_pending_arm_once(bed, id, asked, arms):
    done = bed.reward("sft", 0, numbers(0))
    one = experiment(id, "labels", done, *(bed.pending(*what) for what in asked))
    found = analyze(bed.store, manifest(one))
    assert found.sections[0].pending == found.arms_pending == arms
