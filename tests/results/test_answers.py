"""What a study says in words, from artifacts whose numbers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import Bed, experiment

from weakteach.report.page import write_report
from weakteach.report.words import tally
from weakteach.results.analysis import analyze
from weakteach.results.answers import failure_answers, more_needed, needed_after
from weakteach.results.claims import STATEMENTS
from weakteach.statistics.crossed import mean
from weakteach.statistics.decisions import Claim, Evidence, decide
from weakteach.statistics.rounds import Standing
from weakteach.study.manifest import Manifest, StudyInfo

SIZES = {"opt-45k": 45_000, "opt-230k": 230_000, "opt-1m": 1_000_000, "pythia": 230_000}
PROMPTS = [f"q{n:02}" for n in range(40)]
SEEDS = range(6)
EASE = dict(zip(PROMPTS, np.random.default_rng(1).normal(0, 1, 40).tolist(), strict=True))
# What seeds add to a role's reward: their mean is 0.
WOBBLE = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def analyzed(bed, *experiments, failures=None):
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0, sizes=SIZES)
    return analyze(bed.store, Manifest(info, experiments, (), failures or {}))


def said(bed, *experiments):
    return [(one.verdict, one.sentence) for one in analyzed(bed, *experiments).answers]


def students(bed, role, level, seeds=SEEDS, wobble=0.1, **setting):
    return [
        bed.reward(
            role, seed, {p: level + EASE[p] + wobble * WOBBLE[seed] for p in PROMPTS}, **setting
        )
        for seed in seeds
    ]


TOGETHER = "human labels of the labeled part with weak ones of the others"


@pytest.mark.parametrize(
    ("role", "other", "level", "decided", "open_"),
    [
        (
            "weak", "human", 0.5,
            "weak labels teach worse than human ones: −0.500 [−0.515, −0.485].",
            "weak labels and human ones are",
        ),
        (
            "both", "few_long", 1.3,
            f"{TOGETHER} teach better than these human labels alone: +0.300 [0.285, 0.315].",
            f"{TOGETHER} and these human labels alone are",
        ),
    ],
    ids=["weak labels", "both together"],
)  # fmt: skip
def test_the_size_grid_says_what_is_better_or_worse_and_where_that_is_not_known(
    bed, role, other, level, decided, open_
):
    few, half = {"fraction": "1/8"}, {"fraction": "1/2"}
    found = said(
        bed,
        experiment(
            "sizes", "fraction",
            *students(bed, other, 1.0, wobble=0, **few),
            *students(bed, role, level, **few),
            *students(bed, other, 1.0, wobble=0, **half),
            *students(bed, role, 0.95, wobble=1.0, **half),
        ),
    )  # fmt: skip
    (verdict, first), (not_decided, second) = found
    assert (verdict, not_decided) == ("worse" if level < 1 else "better", "not decided")
    # The seeds of the difference spread by 0.0145: 2.571 · 0.0145 / √6 is half the interval.
    assert first == f"With 1/8 of the pairs labeled, {decided}"
    assert second.startswith(
        f"With 1/2 of the pairs labeled, {open_} not told apart (−0.05 [−0.20, 0.10]); about "
    )
    assert second.endswith(" more seeds would decide it.")


def test_the_seeds_that_would_decide_are_those_beyond_the_ones_there(bed):
    difference = np.array([[w - 0.05] * 40 for w in WOBBLE])
    (decision,) = decide([Evidence(Claim("a", "", "greater"), difference)])
    assert more_needed(decision) == f"about {decision.seeds_needed - 6} more seeds would decide it"
    assert more_needed(replace(decision, seeds_needed=7)) == "about 1 more seed would decide it"
    wanted = replace(decision, seeds_needed=None, prompts_needed=1240)
    assert more_needed(wanted) == "about 1,200 more test prompts would decide it"
    wanted = replace(decision, seeds_needed=None, prompts_needed=None)
    assert more_needed(wanted) == "not even 1,000 seeds would decide it"


def test_a_round_to_come_may_decide_what_no_number_of_seeds_makes_sure():
    difference = np.array([[w - 0.05] * 40 for w in WOBBLE])
    (decision,) = decide([Evidence(Claim("a", "", "greater"), difference)])
    unsure = Standing(replace(decision, seeds_needed=None), round=2, power=0.35)
    assert needed_after(unsure) == (
        "open: a round to come decides it with a chance of 35%, and many more seeds would hardly "
        "raise that"
    )
    never = "not even 1,024 seeds would decide it"
    assert needed_after(replace(unsure, given_up=True)) == f"given up: {never}"
    assert needed_after(replace(unsure, round=4, power=0.0)) == f"open: {never}"


def test_a_larger_teacher_is_compared_with_the_smallest_over_the_places_of_both(bed):
    places = [{"fraction": fraction} for fraction in ("1/8", "1/2")]
    measures = [
        one
        for place in places
        for one in (
            *students(bed, "human", 1.0, wobble=0, **place),
            *students(bed, "weak", 0.5, weak="opt-1m", **place),
            *students(bed, "weak", 0.2, weak="opt-45k", wobble=0, **place),
            *students(bed, "weak", 0.5, weak="unknown", **place),
        )
    ]
    found = said(bed, experiment("sizes", "fraction", *measures))
    assert len(found) == 2 * 3 + 1
    assert found[0][1].startswith("With teacher opt-1m and 1/8 of the pairs labeled, weak labels")
    verdict, sentence = found[-1]
    assert verdict == "better"
    assert sentence == (
        "Over all of these, labels of opt-1m teach better than those of the smaller opt-45k: "
        "+0.300 [0.285, 0.315]."
    )


def test_teachers_of_one_size_are_not_compared(bed):
    measures = [
        *students(bed, "weak", 0.5, weak="pythia"), *students(bed, "weak", 0.2, weak="opt-230k"),
    ]  # fmt: skip
    assert said(bed, experiment("sizes", "fraction", *measures)) == []


def test_what_is_told_apart_alone_is_not_said_among_many(bed):
    """p alone is about 0.03: enough for one comparison, not for four."""

    def measures(fraction, level):
        return [
            *students(bed, "human", 1.0, wobble=0, fraction=fraction),
            *students(bed, "weak", 1 + level, wobble=1.0, fraction=fraction),
        ]

    hit = measures("1/16", 0.18)
    ((verdict, _),) = said(bed, experiment("sizes", "fraction", *hit))
    assert verdict == "better"
    others = [one for f in ("1/8", "1/4", "1/2") for one in measures(f, 0.0)]
    found = said(bed, experiment("sizes", "fraction", *hit, *others))
    assert [verdict for verdict, _ in found] == ["not decided"] * 4
    assert "told apart alone but not among 4 comparisons" in found[0][1]


def in_part_of_a_family(bed, family, late):
    """A study whose one result has a p alone of 0.03, and whose other one is to come or, if
    ``late``, there and about nothing; and the name of its experiment."""

    def there(role, level, wobble=0.0, **setting):
        return students(bed, role, level, wobble=wobble, **setting)

    def later(role, level, **setting):
        if late:
            return there(role, level, wobble=2.0, **setting)
        return [bed.pending("reward", role, seed, **setting) for seed in SEEDS]

    if family == "comparisons":
        hit = [*there("human", 1.0), *there("weak", 1.18, 1.0)]
        other = [*there("human", 1.0, fraction="1/8"), *later("weak", 1.0, fraction="1/8")]
        return experiment("sizes", "fraction", *hit, *other)
    hit = [*there("random", 1.0), *there("weak", 1.18, 1.0)]
    other = [*there("random_mismatched", 1.0), *later("mismatched", 1.0)]
    if family == "claims":
        return experiment("E17", "labels", *hit, *other)
    hit = [*there("human", 1.0), *there("weak", 1.18, 1.0)]
    return experiment("E16", "labels", *hit, *later("matched", 1.0))


@pytest.mark.parametrize("family", ["claims", "comparisons", "table"])
def test_what_is_to_come_counts_in_its_family_as_what_is_there(bed, family):
    alone = mean(np.array([[0.18 + WOBBLE[seed]] * 40 for seed in SEEDS])).p
    assert 0.025 < alone < 0.05
    for late in (False, True):
        one = in_part_of_a_family(bed, family, late)
        found = analyzed(bed, one)
        if family == "claims":
            assert {claim.verdict for claim in found.claims} == {"not decided"}
            assert found.claims[0].p == pytest.approx(2 * alone)
        elif family == "comparisons":
            assert {answer.verdict for answer in found.answers} == {"not decided"}
            assert "told apart alone but not among 2 comparisons" in found.answers[0].sentence
        else:
            table = found.sections[0].tables[0]
            (weak,) = (row for row in table.rows if row[0] == "weak labels")
            assert weak[table.columns.index("p (Holm)")] == pytest.approx(2 * alone)


def test_one_seed_and_seeds_to_come_are_said(bed):
    one = [*students(bed, "human", 1.0, [0]), *students(bed, "weak", 0.5, [0])]
    ((_, sentence),) = said(bed, experiment("sizes", "fraction", *one))
    assert sentence.endswith("; one seed says nothing of others.")
    ((_, sentence),) = said(
        bed, experiment("sizes", "fraction", *one, bed.pending("reward", "weak", 1))
    )
    assert sentence == "Weak labels and human ones are not compared: not all arms are done."


def test_claims_are_answered_the_primary_ones_first(bed):
    def measures(**setting):
        return [
            *students(bed, "base", 0.0, **setting), *students(bed, "human", 1.0, **setting),
            *students(bed, "weak", 0.5, wobble=0, **setting),
        ]  # fmt: skip

    found = analyzed(
        bed,
        experiment("E16", "labels", *measures()),
        experiment("E6", "fraction", *measures(fraction="1/16")),
    )
    first, second = found.answers
    assert (first.experiment, second.experiment) == ("E6", "E16")
    assert first.sentence == (
        "Contradicted: The smallest labeled fraction is enough for labels as good as human ones. "
        "Claimed: weak minus human labels above −0.1. Found: −0.500 [−0.515, −0.485]."
    )
    assert [claim.primary for claim in found.claims] == [True, False]


def test_what_is_decided_comes_first_among_the_primary_and_among_the_other_answers(bed):
    """Of E6 and E16, and of E15 and a comparison, one each is decided."""

    def measures(spread, **setting):
        return [
            *students(bed, "base", 0.0, wobble=0, **setting),
            *students(bed, "human", 1.0, wobble=0, **setting),
            *students(bed, "weak", 0.9, wobble=spread, **setting),
        ]

    clear = [*measures(0)[:12], *students(bed, "weak", 0.5)]
    found = analyzed(
        bed,
        experiment("sizes", "fraction", *measures(1.0)),
        experiment("E1", "student", *measures(1.0)),
        experiment("E6", "fraction", *clear),
        experiment("E15", "beta", *measures(1.0)),
        experiment("E16", "labels", *clear),
    )
    assert [(one.experiment, one.verdict) for one in found.answers[:-1]] == [
        ("E6", "contradicted"), ("E1", "not decided"), ("E16", "contradicted"),
        ("E15", "not decided"), ("E1", "not decided"),
    ]  # fmt: skip
    assert found.answers[-1].experiment == "sizes"
    assert tally(found) == "2 of 5 claims and 0 of 1 comparison decided."


def test_of_how_many_prompts_a_claim_or_a_comparison_is_is_said_where_some_are_missing(bed):
    """19 prompts, of which two are quarantined, each in another role's responses."""

    def role(name, level, wobble, but=()):
        kept = [p for p in PROMPTS[:19] if p not in but]
        return [
            bed.reward(name, seed, {p: level + EASE[p] + wobble * WOBBLE[seed] for p in kept})
            for seed in SEEDS
        ]

    measures = [
        *role("base", 0.0, 0.0),
        *role("human", 1.0, 0.0, [PROMPTS[3]]),
        *role("weak", 0.5, 0.1, [PROMPTS[7]]),
    ]
    claimed = analyzed(bed, experiment("E1", "student", *measures))
    compared = analyzed(bed, experiment("grid", "student", *measures))
    for found in (claimed, compared):
        assert found.answers[0].sentence.endswith("[−0.515, −0.485], 17 of 19 prompts.")
    assert claimed.claims[0].estimate.left_out == 2
    info = StudyInfo("s", "S", "embedded", "python s.py", "here", started=1.0, sizes=SIZES)
    write_report(Path(bed.store.root), info, claimed, final=True)
    page = Path(bed.store.root, "report.html").read_text()
    said = page[page.index('class="claims"') :]
    assert "17 of 19 prompts" in said[: said.index("</ul>")]


def test_the_claims_of_the_abstract_are_the_primary_ones():
    primary = [one.claim.id for one in STATEMENTS if one.primary]
    assert primary == ["E1", "E2 size", "E2 human", "E6"]


def test_secondary_claims_take_nothing_from_the_primary_ones(bed):
    """E6 alone has the p that it has beside E7 and E16, whose claims are other families."""
    base = [*students(bed, "base", 0.0), *students(bed, "human", 1.0, wobble=0)]
    weak = students(bed, "weak", 0.8, wobble=0.5)
    views = [*students(bed, "matched", 0.8, wobble=0.7), *students(bed, "mismatched", 0.1)]
    small = experiment("E6", "fraction", *base, *weak)
    alone = {c.sentence: c.p for c in analyzed(bed, small).claims}
    views_too = experiment("E7", "labels", *base, *weak, *views)
    others = views_too, experiment("E16", "labels", *base, *weak)
    together = {c.sentence: c.p for c in analyzed(bed, small, *others).claims}
    (sentence,) = alone
    assert together[sentence] == alone[sentence] < 1
    # E16 is of the same numbers, and alone in its family; E6 is one of four, asked or not.
    of_e16 = next(p for said, p in together.items() if said.startswith("Over seeds"))
    assert of_e16 == pytest.approx(alone[sentence] / 4)


def test_a_failure_is_told_by_its_reason(bed):
    failed = [bed.pending("reward", "mismatched", seed) for seed in (0, 1)]
    why = "no pair on which weak and human labels differ: nothing to train on"
    one = experiment("sizes", "fraction", *failed)
    found = analyzed(bed, one, failures={measure.fingerprint: why for measure in failed})
    (answer,) = found.answers
    assert answer.verdict == "failed"
    assert answer.sentence == f"Failed in 2 arms, weak labels, mismatched pairs only: {why}."
    assert failure_answers([]) == ()
