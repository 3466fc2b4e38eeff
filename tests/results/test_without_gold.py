"""A study without a gold: its claims say why they are not measured; its students are compared."""

from dataclasses import replace

import pytest
from synthetic import Bed, experiment

from weakteach.results.analysis import analyze
from weakteach.results.outcomes import Outcomes
from weakteach.results.rounds import survey
from weakteach.study.manifest import Manifest, StudyInfo

SIZES = {"opt-45k": 45_000, "opt-230k": 230_000}
SEEDS = tuple(range(10, 18))
# How many of 40 held-out pairs each role chooses as humans do.
RIGHT = {"weak": 20, "human": 30}


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def choices(right):
    return {f"p{n:02}": (1 if n < right else 2, 1, 1) for n in range(40)}


def measured(bed, seeds):
    """What ``outcomes`` of an arm measures without a gold, over seeds that differ a little."""
    found = []
    for seed in seeds:
        for role, right in RIGHT.items():
            one = bed.compared(
                "accuracy", seed, choices(right + (seed % 2 if role == "weak" else 0))
            )
            found.append(replace(one, role=role))
        found += [
            bed.compared(kind, seed, choices(25)) for kind in ("agreement", "teacher_accuracy")
        ]
    return found


def study(id, measures):
    return experiment(id, "supervisor" if id == "E2" else "student", *measures)


def findings(bed, one, rounds=()):
    info = StudyInfo("s", "S", "laptop", "c", "here", 1.0, sizes=SIZES, rounds=rounds)
    return analyze(bed.store, Manifest(info, (one,), (), {}))


@pytest.mark.parametrize("rounds", [(), SEEDS])
@pytest.mark.parametrize("id", ["E1", "E2", "E3", "E11", "E12"])
def test_claims_name_the_reason_and_students_are_compared(bed, id, rounds):
    found = findings(bed, study(id, measured(bed, SEEDS)), rounds)
    assert {claim.needed for claim in found.claims} == {"no gold reward was measured"}
    (answer,) = (one for one in found.answers if one.verdict in ("better", "worse"))
    assert answer.sentence.startswith("Weak labels teach worse than human ones: −0.2")


def test_the_claims_of_what_is_measured_are_asked_though_others_are_not(bed):
    found = findings(bed, study("R5", measured(bed, SEEDS)))
    chance, scaling = found.claims
    assert chance.estimate.value == pytest.approx(25 / 40 - 0.5)
    assert scaling.needed == "no calibration error was measured"


def test_rounds_go_on_until_the_comparison_is_decided(bed):
    whole = measured(bed, SEEDS)
    first = survey([study("E1", whole)], Outcomes(bed.store), SIZES, SEEDS)
    assert [one.claim for one in first.questions] == [""]
    assert first.standings[0].decided
    asked = {m.seed for one in first.experiments for m in one.measures}
    assert asked == set(SEEDS[:4])
