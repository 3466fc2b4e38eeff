"""Every claim beyond the publication from artifacts whose numbers are known."""

import pytest
from synthetic import Bed, experiment
from test_claims import check, students

from weakteach.results.beyond import BEYOND_STATEMENTS
from weakteach.results.deciding import claim_rows


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def claims(bed, one):
    stated = [statement for statement in BEYOND_STATEMENTS if statement.experiment == one.id]
    rows = claim_rows([one], bed.outcomes, {})
    return {statement.claim.id: row for statement, row in zip(stated, rows, strict=True)}


COMMON = {"base": 0.0, "human": 2.0, "human_all": 3.0, "human_few": 1.9, "weak": 1.8}


def test_c1_averages_over_losses_and_compares_soft_labels_under_dpo_alone(bed):
    main = students(bed, {**COMMON, "weighted": 2.4, "soft": 1.9})
    ipo = students(bed, {"human": 3.0, "weak": 2.0, "weighted": 2.0}, recipe="loss ipo")
    found = claims(bed, experiment("C1", "recipe", *main, *ipo))
    check(found["C1 weak"], (0.6 + 0.0) / 2)
    check(found["C1 human"], (0.4 - 1.0) / 2, 0.1 * 2.5)
    check(found["C1 soft"], 0.1)


def test_c3_and_c4_compare_with_the_mean_of_the_others(bed):
    levels = {"weighted": 2.4, "top_30": 2.0, "top_40": 2.1, "confident": 2.2}
    found = claims(bed, experiment("C3", "labels", *students(bed, {**COMMON, **levels})))
    check(found["C3"], 2.4 - 2.1)
    levels = {"weighted": 2.4, "weighted_C2": 2.0, "weighted_C3": 2.0, "weighted_C4": 2.6}
    found = claims(bed, experiment("C4", "labels", *students(bed, {**COMMON, **levels})))
    check(found["C4"], 2.4 - 2.2)


def test_c5_is_of_the_smallest_fraction(bed):
    many = students(bed, {**COMMON, "weighted": 2.9}, fraction="1/2")
    few = students(bed, {**COMMON, "weighted": 2.5}, fraction="1/16")
    found = claims(bed, experiment("C5", "fraction", *many, *few))
    check(found["C5"], 2.5 - 3.0, 0.1 * 2)


def test_r11_compares_with_human_labels_of_some_and_of_all(bed):
    levels = {"both": 2.7, "few_long": 2.2}
    found = claims(bed, experiment("R11", "labels", *students(bed, {**COMMON, **levels})))
    check(found["R11 few"], 0.5)
    check(found["R11 all"], -0.3, 0.1 * 2)


def accuracies(bed, right, **setting):
    """Of 20 pairs, the teacher of seed s labels ``right`` + s as the human did."""
    return [
        bed.compared(
            "teacher_accuracy",
            seed,
            {f"p{n:02}": (1 if n < right + seed else 2, 1, 1) for n in range(20)},
            **setting,
        )
        for seed in (0, 1, 2)
    ]


def test_c2_compares_the_accuracies_of_kinds_of_teachers(bed):
    kinds = {"DPO": 12, "DPO alone": 10, "reward head": 15}
    measures = [one for kind, n in kinds.items() for one in accuracies(bed, n, teacher=kind)]
    found = claims(bed, experiment("C2", "supervisor", *measures))
    check(found["C2 SFT"], 3 / 20)
    check(found["C2 alone"], 5 / 20)
