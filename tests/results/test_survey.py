"""A study in rounds, from artifacts whose numbers are known: what each round needs, what is decided
when, and that this does not depend on how the artifacts came to be."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Bed, experiment

from weakteach.results.analysis import analyze
from weakteach.results.answers import needed_after
from weakteach.results.outcomes import Outcomes
from weakteach.results.rounds import needs_of, next_rounds, questions_of, survey
from weakteach.study.manifest import Manifest, StudyInfo, make_manifest

SIZES = {"opt-45k": 45_000, "opt-230k": 230_000, "opt-1m": 1_000_000}
SEEDS = tuple(range(10, 18))
PROMPTS = [f"q{n:02}" for n in range(20)]
EASE = dict(zip(PROMPTS, np.random.default_rng(1).normal(0, 1, 20).tolist(), strict=True))
# What each role's reward is on average, and how far seeds move it.
LEVELS = {
    "base": (0.0, 0.0), "human": (2.0, 0.0), "sft": (1.0, 0.0), "weak": (3.0, 0.01),
    "random": (1.0, 0.0), "mismatched": (0.5, 1.0), "random_mismatched": (0.45, 0.0),
}  # fmt: skip
WITHOUT = {"weak": (2.0, 1.0), "human": (1.5, 0.0)}


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


class Planned:
    """Measures whose artifacts are written when they are asked for."""

    def __init__(self, bed):
        self.bed, self.values, self.count = bed, {}, 0

    def students(self, levels, seeds=SEEDS, **setting):
        found = []
        for place, seed in enumerate(seeds):
            for role, (level, spread) in levels.items():
                self.count += 1
                one = self.bed.pending("reward", role, seed, **setting)
                one = replace(one, step="GoldReward", fingerprint=f"{self.count:020d}")
                up = spread * (-1) ** place
                values = {p: level + up + EASE[p] + 0.01 * up * EASE[p] for p in PROMPTS}
                self.values[one.fingerprint] = values
                found.append(one)
        return found

    def compute(self, measures):
        for one in measures:
            values = self.values[one.fingerprint]
            self.bed.reward(one.role, one.seed, values, fingerprint=one.fingerprint)


@pytest.fixture
def planned(bed):
    return Planned(bed)


@pytest.fixture
def universe(planned):
    main = planned.students(LEVELS)
    without = planned.students(WITHOUT, sft="without SFT")
    return [
        experiment("E14", "sft", *main, *without),
        experiment("E17", "labels", *main),
        experiment("E9", "labels", *[m for m in main if m.role == "sft"]),
    ]


def look(bed, universe, seeds=SEEDS, failed=()):
    return survey(universe, Outcomes(bed.store), SIZES, seeds, failed)


def wanted(found):
    return {m for one in found.wanted for m in one.measures}


def run(bed, planned, universe, seeds=SEEDS, until=9):
    """Compute round after round; what the last look finds."""
    while (found := look(bed, universe, seeds)).number is not None and found.number <= until:
        planned.compute(wanted(found))
    return found


def told(found):
    return {
        one.claim: (there.round, there.decision.verdict, there.given_up)
        for one, there in zip(found.questions, found.standings, strict=True)
    }


def test_the_first_round_is_the_whole_study_on_two_seeds(bed, universe):
    found = look(bed, universe)
    assert found.number == 1
    every = {m for one in universe for m in one.measures if m.seed in (10, 11)}
    assert wanted(found) == every
    assert {s.round for s in found.standings} == {0}


def test_later_rounds_are_of_what_open_claims_need_on_new_seeds(bed, planned, universe):
    """E17 all is decided in round 2, E17 mismatched is given up, and E14 needs one round more."""
    second = run(bed, planned, universe, until=1)
    assert second.number == 2
    assert {m.seed for m in wanted(second)} == {12, 13}
    assert {m.role for m in wanted(second)} == {
        "weak", "human", "random", "mismatched", "random_mismatched",
    }  # fmt: skip
    third = run(bed, planned, universe, until=2)
    assert told(third)["E17 all"] == (2, "supported", False)
    assert told(third)["E17 mismatched"] == (2, "not decided", True)
    assert third.number == 3
    assert {m.seed for m in wanted(third)} == {14, 15, 16, 17}
    settings = {(m.role, m.setting.sft) for m in wanted(third)}
    assert settings == {(r, s) for r in ("weak", "human") for s in ("with SFT", "without SFT")}
    end = run(bed, planned, universe)
    assert end.number is None
    assert told(end)["E14"] == (3, "supported", False)
    asked = {m.fingerprint for one in end.experiments for m in one.measures}
    assert len(asked) == 18 + 14 + 16


def test_the_rounds_to_come_are_counted_as_if_nothing_more_were_decided(bed, planned, universe):
    found = run(bed, planned, universe, until=1)
    rounds = dict(next_rounds(universe, found, SIZES, SEEDS))
    assert {n: len({m for e in of for m in e.measures}) for n, of in rounds.items()} == {
        2: 14, 3: 28,
    }  # fmt: skip


def test_verdicts_are_equal_however_the_study_got_there(tmp_path):
    ends = []
    for way in ("undisturbed", "killed", "larger budget", "all there"):
        bed = Bed(tmp_path / way.replace(" ", "_"))
        planned = Planned(bed)
        main, without = planned.students(LEVELS), planned.students(WITHOUT, sft="without SFT")
        universe = [
            experiment("E14", "sft", *main, *without),
            experiment("E17", "labels", *main),
        ]
        if way == "killed":  # within each round, after any of its measures
            while (found := look(bed, universe)).number is not None:
                for one in sorted(wanted(found), key=lambda m: m.fingerprint):
                    if Outcomes(bed.store).facts(one) is None:
                        planned.compute([one])
                        break
        elif way == "larger budget":
            small = run(bed, planned, universe, SEEDS[:4])
            assert small.number is None
            assert told(small)["E14"][1] == "not decided"
        elif way == "all there":
            planned.compute({m for one in universe for m in one.measures})
        ends.append(run(bed, planned, universe))
    assert len({str(told(end)) for end in ends}) == 1
    estimates = [[s.decision.estimate for s in end.standings] for end in ends]
    assert all(one == estimates[0] for one in estimates)
    measures = [{m for one in end.experiments for m in one.measures} for end in ends]
    assert all(one == measures[0] for one in measures)


def test_a_claim_that_needs_what_failed_waits_and_the_others_go_on(bed, planned, universe):
    second = run(bed, planned, universe, until=1)
    broken = next(m for m in wanted(second) if m.setting.sft == "without SFT")
    planned.compute(wanted(second) - {broken})
    again = look(bed, universe)
    assert again.number == 2
    assert told(again)["E17 all"] == (2, "supported", False)  # what is whole is decided at once
    after = look(bed, universe, failed={broken.fingerprint})
    assert after.number is None
    assert told(after)["E14"][0] == 1
    planned.compute([broken])
    assert look(bed, universe).number == 3


def test_a_claim_needs_the_cells_that_it_is_a_difference_of(planned):
    controls = planned.students({"base": (0, 0), "human": (2, 0), "sft": (1, 0)}, (10, 11))
    weak = [
        one for name in SIZES for one in planned.students({"weak": (2, 0)}, (10, 11), weak=name)
    ]
    study = [experiment("E2", "supervisor", *controls, *weak)]
    needed = {q.claim: needs_of(q, study, SIZES) for q in questions_of(study, SIZES)}
    plain = {name: {(s.weak, role) for s, _, role, _ in keys} for name, keys in needed.items()}
    shared = {("opt-45k", "base"), ("opt-45k", "human")}
    assert plain["E2 size"] == shared | {("opt-45k", "weak"), ("opt-1m", "weak")}
    assert plain["E2 human"] == shared | {(name, "weak") for name in SIZES}


def test_the_primary_claims_come_first(planned):
    main = planned.students(LEVELS, (10, 11))
    study = [experiment(name, "labels", *main) for name in ("E17", "E1", "E6")]
    ids = [one.claim for one in questions_of(study, SIZES)]
    assert ids == ["E1", "E6", "E17 all", "E17 mismatched", "R2"]


@pytest.mark.parametrize("rounds", [SEEDS[:2], ()])
def test_a_primary_claim_has_the_same_share_of_the_error_in_every_sweep(bed, planned, rounds):
    """E6 in a sweep of its own, and beside E1 and both of E2, of which those are not decided."""
    levels = {"base": (0.0, 0.0), "human": (2.0, 0.0), "weak": (2.2, 0.01)}
    measures = planned.students(levels, (10, 11))
    planned.compute(measures)
    other = replace(measures[2], setting=replace(measures[2].setting, weak="opt-1m"))
    found = {}
    for asked in (["E6"], ["E1", "E2", "E6"]):
        study = [experiment(id, "fraction", *measures) for id in asked]
        if "E2" in asked:
            study[1] = experiment("E2", "supervisor", *measures, other)
        info = StudyInfo("s", "S", "embedded", "c", "here", 1.0, sizes=SIZES, rounds=rounds)
        rows = analyze(bed.store, Manifest(info, tuple(study), (), {})).claims
        (found[len(rows)],) = (row for row in rows if row.experiment == "E6")
    alone, among = found.values()
    assert list(found) == [1, 5]  # and R2, of E1
    assert (alone.p, alone.confidence) == (among.p, among.confidence)
    assert alone.p < 1
    if rounds:
        assert alone.confidence == pytest.approx(1 - 0.05 * 0.1 / 4)


def test_a_study_without_claims_is_decided_by_its_comparisons(bed, planned):
    few = {"weak": (0.5, 0.01), "human": (2.0, 0.0), "gold": (2.0, 0.0)}
    study = [
        experiment(
            "sizes", "fraction",
            *planned.students(few, fraction="1/8"),
            *planned.students({**few, "weak": (1.98, 0.5)}, fraction="1/2"),
        )
    ]  # fmt: skip
    end = run(bed, planned, study)
    (decided, given_up) = end.standings
    assert (decided.round, decided.decision.verdict) == (2, "contradicted")
    assert given_up.given_up
    info = StudyInfo("s", "S", "embedded", "c", "here", 1.0, sizes=SIZES, rounds=SEEDS)
    answers = analyze(bed.store, make_manifest(info, end.experiments)).answers
    assert [one.verdict for one in answers] == ["worse", "not decided"]
    assert answers[0].sentence.endswith("a 99.5% interval, in round 2 of 4 seeds.")
    assert needed_after(given_up) in answers[1].sentence
    assert "given up: not even 1,024 seeds would decide it" in answers[1].sentence


def test_a_report_of_the_manifest_says_what_the_study_decided_and_when(bed, planned, universe):
    end = run(bed, planned, universe)
    info = StudyInfo("s", "S", "embedded", "c", "here", 1.0, sizes=SIZES, rounds=SEEDS)
    findings = analyze(bed.store, Manifest(info, end.experiments, (), {}))
    rows = {row.measured.partition(" above")[0]: row for row in findings.claims}
    sft, weak = rows["with minus without SFT"], rows["weak minus random errors"]
    assert (sft.verdict, sft.round) == ("supported", "round 3 of 8 seeds")
    assert sft.confidence == pytest.approx(1 - 0.05 * 0.3)
    assert sft.p < 0.05
    assert (weak.verdict, weak.round) == ("supported", "round 2 of 4 seeds")
    open_ = rows["mismatched minus random mismatched labels"]
    assert (open_.verdict, open_.round) == ("not decided", "round 2 of 4 seeds")
    assert open_.needed.startswith("given up: ")
    said = next(one.sentence for one in findings.answers if one.experiment == "E14")
    assert said.startswith("Supported: SFT on the labels")
    assert said.endswith("a 98.5% interval, in round 3 of 8 seeds.")


def test_a_comparison_that_cannot_be_made_says_why_in_rounds_too(bed):
    measures = [
        bed.reward(role, seed, dict.fromkeys(prompts, 1.0))
        for seed in SEEDS[:2]
        for role, prompts in (("weak", PROMPTS[:12]), ("human", PROMPTS[8:]))
    ]
    info = StudyInfo("s", "S", "embedded", "c", "here", 1.0, sizes=SIZES, rounds=SEEDS)
    study = Manifest(info, (experiment("sizes", "fraction", *measures),), (), {})
    (answer,) = analyze(bed.store, study).answers
    assert answer.sentence == (
        "Weak labels and human ones are not compared: what is compared share 4 of 20 prompts or "
        "pairs, too few to compare."
    )


def test_before_the_first_round_is_done_nothing_is_measured(bed, universe):
    found = look(bed, universe)
    info = StudyInfo("s", "S", "embedded", "c", "here", 1.0, sizes=SIZES, rounds=SEEDS)
    findings = analyze(bed.store, Manifest(info, found.experiments, (), {}))
    assert {row.measured for row in findings.claims} == {"not measured"}
