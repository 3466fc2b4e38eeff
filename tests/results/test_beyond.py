"""Every claim beyond the publication from artifacts whose numbers are known."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from synthetic import Bed, experiment
from test_claims import check, rewards, students

from weakteach.artifacts.errors import StorageError
from weakteach.results.analysis import analyze
from weakteach.results.beyond import BEYOND_STATEMENTS
from weakteach.results.deciding import claim_rows
from weakteach.study.manifest import Manifest, StudyInfo


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def claims(bed, one):
    stated = [statement for statement in BEYOND_STATEMENTS if statement.experiment == one.id]
    rows = claim_rows([one], bed.outcomes, {})
    return {statement.claim.id: row for statement, row in zip(stated, rows, strict=True)}


def sections(bed, one):
    """The section of the report."""
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)
    return analyze(bed.store, Manifest(info, (one,), ())).sections[0]


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
    one = r11(bed, best_updates=(36, 72, 36))
    found = claims(bed, one)
    check(found["R11 few"], 0.5)
    check(found["R11 stopped"], 0.3)
    check(found["R11 all"], -0.3, 0.1 * 2)
    sentences = {s.claim.id: s.claim.sentence for s in BEYOND_STATEMENTS}
    assert {row.sentence for row in found.values()} <= set(sentences.values())


def test_r11_says_where_training_ended_for_want_of_epochs(bed):
    one = r11(bed, best_updates=(108, 72, 108))
    found = claims(bed, one)
    limit = (
        "In 2 of 3 trainings held-out pairs still gained after 10 epochs, the most that are tried."
    )
    assert found["R11 stopped"].sentence.endswith(f"gains from weak labels of the others. {limit}")
    assert limit not in found["R11 few"].sentence
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0)
    answers = analyze(bed.store, Manifest(info, (one,), ())).answers
    assert [limit in answer.sentence for answer in answers] == [False, True, False]


def test_a_student_that_does_not_tell_how_long_it_was_trained_is_damaged(bed):
    with pytest.raises(StorageError, match="does not tell how long training was tried"):
        claims(bed, experiment("R11", "labels", *students(bed, {"few_stopped": 2.4})))


def r11(bed, best_updates):
    """Of three seeds, for which the best of 108 updates were those."""
    measures = students(bed, {**COMMON, "both": 2.7, "few_long": 2.2})
    for seed, best in enumerate(best_updates):

        def put(step, facts, **parameters):
            made = bed.put(step, facts, {}, parameters=parameters)
            return {"step": step, "fingerprint": made}

        tried = put("Dpo", {"best_updates": best, "updates": 108})
        responses = put("Generate", {}, policy=put("Dpo", {}, as_long_as=tried))
        made_of = {"responses": responses}
        measures.append(bed.reward("few_stopped", seed, rewards(2.4, seed), "gold", "", made_of))
    return experiment("R11", "labels", *measures)


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


def of_pairs(bed, kind, step, name, columns, **setting):
    """A measure whose artifact holds these columns of 20 pairs, for every seed."""
    ids = [f"p{n:02}" for n in range(20)]
    keys = {"pair_id": ids, "prompt_id": ids}
    facts = {"compared": 20, "temperature": 2.0, "ece_claimed": 0.1, "ece_scaled": 0.1,
             "alike": 1, "kappa": None}  # fmt: skip
    return [
        bed.measure(
            kind,
            "weak",
            seed,
            step,
            bed.put(step, facts, {name: pa.table({**keys, **columns(seed)})}),
            **setting,
        )
        for seed in (0, 1, 2)
    ]


def test_r5_compares_with_chance_and_the_calibration_errors_of_one_seed(bed):
    right = [1.0] * 12 + [0.0] * 8
    table = {"right": right, "claimed": [0.9] * 20, "scaled": [0.65] * 20}
    gains = of_pairs(bed, "ece_gain", "Reliability", "reliability", lambda seed: table)
    one = experiment("R5", "supervisor", *accuracies(bed, 11), *gains)
    found = claims(bed, one)
    check(found["R5 chance"], 12 / 20 - 0.5)
    check(found["R5 scaling"], (0.9 - 0.6) - (0.65 - 0.6))
    (shown,) = [t for t in sections(bed, one).tables if t.title.startswith("Calibration before")]
    ((teacher, temperature, claimed, scaled, gained),) = shown.rows
    assert (teacher, temperature) == ("opt-45k", 2.0)
    assert [one.value for one in (claimed, scaled, gained)] == pytest.approx([0.3, 0.05, 0.25])


def alike(bed, right, **setting):
    def column(seed):
        return {"alike": [1.0] * right + [0.0] * (20 - right)}

    return of_pairs(bed, "alike", "Alike", "alike", column, **setting)


def test_r6_compares_seeds_with_humans_and_sizes_with_seeds(bed):
    measures = [
        *accuracies(bed, 11),
        *alike(bed, 16, teacher="DPO, another seed"),
        *alike(bed, 14, weak="opt-230k"),
        *alike(bed, 13, weak="opt-1m"),
    ]
    one = experiment("R6", "supervisor", *measures)
    found = claims(bed, one)
    check(found["R6 seeds"], 16 / 20 - 12 / 20)
    check(found["R6 sizes"], 13.5 / 20 - 16 / 20, 0.1 * (16 / 20 - 0.5))
    (table,) = [t for t in sections(bed, one).tables if "main teacher" in t.title]
    assert [row[0] for row in table.rows] == ["opt-45k, another seed", "opt-230k", "opt-1m"]


def test_r8_is_of_the_main_teacher_first(bed):
    def transfer(right, **setting):
        return [replace(one, kind="transfer") for one in accuracies(bed, right, **setting)]

    there = transfer(11, domain="posts", teacher="DPO, of world")
    back = transfer(8, domain="world", teacher="DPO, of posts")
    own = [*accuracies(bed, 15, domain="world"), *accuracies(bed, 15, domain="posts")]
    # As in a study: seed by seed.
    measures = [one for row in zip(there, back, own[:3], own[3:], strict=True) for one in row]
    one = experiment("R8", "domain", *measures)
    found = claims(bed, one)
    check(found["R8 there"], 12 / 20 - 0.5)
    check(found["R8 back"], 9 / 20 - 0.5)
    assert claims(bed, experiment("R8", "domain", *own))["R8 there"].measured == "not measured"


def test_r12_compares_with_the_same_teacher_and_with_all_that_vote(bed):
    main = students(bed, {**COMMON, "target": 2.1, "ensemble": 2.6})
    others = [
        one
        for name, level in {"opt-1m": 2.4, "pythia-230k": 2.1}.items()
        for one in students(bed, {"weak": level}, weak=name)
    ]
    found = claims(bed, experiment("R12", "supervisor", *main, *others))
    check(found["R12 target"], 2.1 - 1.8)
    check(found["R12 ensemble"], 2.6 - (1.8 + 2.4 + 2.1) / 3)


def test_every_statement_beyond_the_publication_is_tested_here():
    here = Path(__file__).read_text()
    for statement in BEYOND_STATEMENTS:
        assert f'"{statement.claim.id}"]' in here, statement.claim.id
