"""What weak labels are worth, from students whose outcomes are known."""

import math

import numpy as np
import pytest
from synthetic import Bed, experiment

from weakteach.report.page import of_seeds_alone
from weakteach.results.analysis import analyze
from weakteach.results.worth import worth_table
from weakteach.study.manifest import Manifest, StudyInfo

PROMPTS = [f"q{n:02}" for n in range(40)]
EASE = dict(zip(PROMPTS, np.random.default_rng(1).normal(0, 1, 40).tolist(), strict=True))
# Of 800 pairs, the labeled ones.
FRACTIONS = {"1/8": 100, "1/4": 200, "1/2": 400}


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def students(bed, role, fraction, labels, wobble=0.0, seeds=(0, 1, 2)):
    level = math.log(labels)
    return [
        bed.reward(
            role, s, {p: level + EASE[p] + wobble * (s - 1) for p in PROMPTS}, fraction=fraction
        )
        for s in seeds
    ]


def agreements(bed, fraction, human, labeled=None):
    rows = {f"p{n:03}": (1, 1, 1) for n in range(800 - human)}
    return [
        bed.compared("agreement", seed, rows, fraction=fraction, labeled=labeled)
        for seed in (0, 1, 2)
    ]


def sections(bed, *measures, **told):
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0, **told)
    found = analyze(bed.store, Manifest(info, (experiment("sizes", "fraction", *measures),), ()))
    return [table for table in found.sections[0].tables if "worth" in table.title]


def humans(bed):
    alone = [students(bed, "few_long", f, n) for f, n in FRACTIONS.items()]
    counted = [agreements(bed, f, n) for f, n in FRACTIONS.items()]
    return [one for group in (*alone, *counted) for one in group]


def test_weak_labels_beside_human_ones_are_worth_so_many_more_of_them(bed):
    both = students(bed, "both", "1/8", 240)
    (table,) = sections(bed, *humans(bed), *both)
    ((teacher, fraction, human, weak, worth, told),) = table.rows
    assert (teacher, fraction, human, weak, told) == ("opt-45k", "1/8", 100, 700, "yes")
    # 700 weak labels lift 100 human ones to where 240 are.
    assert worth.value == pytest.approx(140 * 1000 / 700)
    assert (worth.low, worth.high) == pytest.approx((worth.value, worth.value))


def test_all_that_the_teacher_labels_counts_though_humans_chose_in_a_quarter_of_it(bed):
    alone = [one for f, n in FRACTIONS.items() for one in students(bed, "few_long", f, n)]
    counted = [
        one
        for fraction, human in FRACTIONS.items()
        for one in agreements(bed, fraction, human, labeled=4 * (800 - human))
    ]
    both = students(bed, "both", "1/8", 240)
    (table,) = sections(bed, *alone, *counted, *both, label_price=0.25)
    ((*_, human, weak, worth, money, told),) = table.rows
    assert (human, weak, told) == (100, 2800, "yes")
    assert worth.value == pytest.approx(140 * 1000 / 2800)
    assert money.value == pytest.approx(12.5)


@pytest.mark.parametrize(
    ("seeds", "told"), [((0,), "no: one seed says nothing of others"), ((0, 1), "yes")]
)
def test_the_worth_is_for_new_seeds_only_if_there_are_several(bed, seeds, told):
    measures = [*humans(bed), *students(bed, "both", "1/8", 240)]
    (table,) = sections(bed, *(one for one in measures if one.seed in seeds), label_price=0.25)
    ((*_, worth, money, said),) = table.rows
    assert said == told
    for one in (worth, money):
        assert (one.seeds, one.covers_seeds) == (len(seeds), len(seeds) > 1)
        assert of_seeds_alone(one) == (len(seeds) == 1)


def test_students_without_enough_prompts_in_common_are_a_row_that_says_so(bed):
    both = students(bed, "both", "1/8", 240)
    few = dict.fromkeys(PROMPTS[:20], 1.0)
    odd = [bed.reward("both", seed, few, fraction="1/4") for seed in (0, 1, 2)]
    (table,) = sections(bed, *humans(bed), *both, *odd)
    whole, refused = table.rows
    assert whole[-1] == "yes"
    why = "no: what is compared share 20 of 40 prompts or pairs, too few to compare"
    assert refused[-2:] == (None, why)


def test_the_price_of_a_human_label_makes_it_money(bed):
    (table,) = sections(bed, *humans(bed), *students(bed, "both", "1/8", 240), label_price=0.25)
    assert table.columns[-3:] == ("1,000 are worth", "at 0.25 a label", "told")
    ((*_, worth, money, told),) = table.rows
    assert told == "yes"
    assert worth.value == pytest.approx(200)
    assert (money.value, money.low, money.high) == pytest.approx((50, 50, 50))
    (table,) = sections(bed, *humans(bed), *students(bed, "both", "1/8", 40_000), label_price=0.25)
    assert table.rows[0][4:] == (None, None, "no: human labels alone do not tell")


def test_an_open_interval_and_a_worth_beyond_what_was_tried_are_not_told(bed):
    both = [*students(bed, "both", "1/4", 240, wobble=1.0), *students(bed, "both", "1/8", 40_000)]
    (table,) = sections(bed, *humans(bed), *both)
    noisy, far = table.rows
    assert noisy[4].value == pytest.approx(40 * 1000 / 600)
    assert noisy[5] == "no: the interval is open"
    assert far[4:] == (None, "no: human labels alone do not tell")


def test_without_two_fractions_or_with_pending_arms_nothing_is_said(bed):
    both = students(bed, "both", "1/8", 240)
    one = [*students(bed, "few_long", "1/8", 100), *agreements(bed, "1/8", 100)]
    assert sections(bed, *one, *both) == []
    assert sections(bed, *humans(bed), *both[:2], bed.pending("reward", "both", 2,
                                                              fraction="1/8")) == []  # fmt: skip
    uncounted = [one for one in humans(bed) if one.kind != "agreement"]
    assert sections(bed, *uncounted, *both) == []
    assert worth_table(experiment("sizes", "fraction"), [], bed.outcomes) is None
