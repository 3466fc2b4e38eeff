"""Rounds of seeds: their shares of the error, what is decided, given up and never undone; and by
simulation, how often a study says anything wrong."""

import numpy as np
import pytest
from scipy import stats
from simulated import PROMPTS, ROUNDS, after, at_boundary, claim, cut, drawn

from weakteach.statistics.crossed import components, mean
from weakteach.statistics.decisions import (
    CONTRADICTED,
    NOT_DECIDED,
    SUPPORTED,
    Evidence,
    decide,
)
from weakteach.statistics.rounds import LEAST_POWER, decide_rounds
from weakteach.statistics.schedule import rounds_of, seeds_of, share

STUDIES = 2000


def matrix(mean: float, sd: float, seeds: int = 16, random: int = 0) -> np.ndarray:
    """Seed effects around a mean, of sd, and as much noise of prompts [seeds, PROMPTS]; every first
    2, 4, 8 and 16 seeds have just this mean."""
    rng = np.random.default_rng(random)
    signs = np.resize([1.0, -1.0], seeds)
    noise = rng.normal(size=(seeds // 2, PROMPTS)).repeat(2, axis=0)
    return mean + sd * signs[:, None] + 0.1 * sd * signs[:, None] * noise


def test_the_shares_of_all_rounds_sum_to_one_and_do_not_depend_on_their_number():
    assert [share(n) for n in range(1, 8)] == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.1, 0.05, 0.025])
    assert sum(share(n) for n in range(1, 60)) == pytest.approx(1)


def test_rounds_are_of_powers_of_two():
    assert [rounds_of(seeds) for seeds in (2, 4, 16)] == [1, 2, 4]
    for refused in (0, 1, 3, 12, 4096):
        with pytest.raises(ValueError, match="Rounds are of 2, 4, 8"):
            rounds_of(refused)


def test_a_claim_is_decided_in_the_first_round_whose_share_is_enough_and_stays_so():
    """Its p times the number of claims is below 5% of the round's share, not in a round before."""
    clear, vague = claim(matrix(1.0, 0.5)), claim(matrix(0.1, 1.0, random=1))
    p_values = [mean(cut(clear, r).difference).p for r in (1, 2, 3)]
    assert [2 * p < 0.05 * share(r) for r, p in enumerate(p_values, 1)] == [False, False, True]
    standings = after([clear, vague], 4)
    decided = standings[0]
    assert (decided.round, decided.decision.verdict) == (3, SUPPORTED)
    assert decided.decision.p == pytest.approx(2 * p_values[2] / share(3))
    assert after([clear, vague], 3)[0] == decided
    assert after([clear, vague], 2)[0].decision.verdict == NOT_DECIDED


def test_the_interval_is_at_the_level_of_its_round_and_step_and_leaves_out_the_boundary():
    clear, clearer = claim(matrix(1.0, 0.5)), claim(matrix(-4.0, 0.5, random=1))
    first, second = after([clear, clearer], 3)
    assert (second.round, second.decision.verdict) == (2, CONTRADICTED)
    assert second.confidence == pytest.approx(1 - 0.05 * share(2) / 2)
    # The other one is alone in the third round.
    assert first.confidence == pytest.approx(1 - 0.05 * share(3))
    half = components(cut(clear, 3).difference).half_width(0.05 * share(3) / 2)
    estimate = first.decision.estimate
    assert (estimate.low, estimate.high) == pytest.approx((1.0 - half, 1.0 + half))
    assert estimate.low > 0


def test_one_that_needs_no_family_is_decided_as_in_a_study_of_one_look_at_the_rounds_level():
    one = claim(matrix(0.1, 0.5), "close", 1.0)
    (standing,) = after([one], 3)
    looked = decide([cut(one, standing.round)])[0]
    assert standing.decision.verdict == looked.verdict == SUPPORTED
    assert standing.decision.p_alone == pytest.approx(looked.p_alone / share(standing.round))


def test_a_claim_that_the_rounds_to_come_cannot_decide_is_given_up_and_says_what_it_would_take():
    hopeless, close = claim(matrix(0.25, 1.0)), claim(matrix(0.9, 1.0, random=1))
    given_up, open_ = after([hopeless, close], 2)
    assert given_up.given_up
    assert given_up.power < LEAST_POWER <= open_.power
    assert given_up.decision.seeds_needed in (256, 512)
    assert open_.open
    assert not after([hopeless, close], 1)[0].given_up  # two seeds tell too little
    larger = after([hopeless, close], 2, most=9)[0]
    assert larger.open


def test_a_claim_that_was_given_up_counts_in_its_family_and_takes_part_no_more():
    hopeless, close = claim(matrix(0.25, 1.0)), claim(matrix(0.9, 1.0, random=1))
    evidence = [[cut(one, r) for one in (hopeless, close)] for r in (1, 2)]
    standings = decide_rounds([*evidence, [cut(claim(matrix(9.0, 1.0)), 3), cut(close, 3)]], 4)
    assert (standings[0].round, standings[0].given_up) == (2, True)
    p = mean(cut(close, 3).difference).p
    assert standings[1].decision.p == pytest.approx(min(1, 2 * p / share(3)))


def test_no_evidence_counts_as_none_and_a_claim_that_missed_a_round_waits():
    clear, other = claim(matrix(1.0, 0.5)), claim(matrix(0.9, 1.0, random=1))
    evidence = [[cut(clear, 1), cut(other, 1)], [cut(clear, 2), None]]
    standings = decide_rounds([*evidence, [cut(clear, 3), cut(other, 3)]], 4)
    assert standings[1].round == 1
    p = mean(cut(clear, 3).difference).p
    assert standings[0].decision.p == pytest.approx(2 * p / share(3))


def test_more_rounds_undo_nothing():
    """A study with a larger budget decides all that one with a smaller budget has decided."""
    rng = np.random.default_rng(3)
    decided = 0
    for _ in range(40):
        family = [claim(drawn(rng, d, 0.4)) for d in (0.0, 1.0, 2.5)]
        small, large = after(family, 3, most=3), after(family, 4)
        for one, other in zip(small, large, strict=True):
            if one.decided:
                decided += 1
                assert other.round <= one.round
                assert other.decision.verdict == one.decision.verdict
    assert decided > 20


def test_evidence_of_other_seeds_than_the_rounds_is_refused():
    with pytest.raises(ValueError, match="4 seeds in round 1"):
        decide_rounds([[cut(claim(matrix(1.0, 1.0)), 2)]], 4)


def all_at_boundary(rng) -> list[Evidence]:
    """Four claims as those of the abstract, of students that share their seeds."""
    common = rng.normal(size=seeds_of(ROUNDS))
    forms = (("greater", False), ("at_least", False), ("close", False), ("at_least", True))
    return [at_boundary(rng, common, *form) for form in forms]


@pytest.mark.parametrize("studies", [200, pytest.param(STUDIES, marks=pytest.mark.slow)])
def test_with_all_claims_at_their_boundary_at_most_five_percent_of_studies_say_anything_wrong(
    studies,
):
    """Of one family, in studies of up to 16 seeds that stop where all is decided or given up."""
    rng = np.random.default_rng(0)
    wrong, rounds, given_up = 0, np.zeros(ROUNDS + 1, int), 0
    for _ in range(studies):
        standings = after(all_at_boundary(rng), ROUNDS)
        wrong += any(one.decided for one in standings)
        given_up += sum(one.given_up for one in standings)
        for one in standings:
            rounds[one.round] += one.decided
    print(f"\n{wrong} of {studies} studies ({wrong / studies:.2%}) say anything wrong")
    print(f"wrong decisions by round: {rounds[1:].tolist()}")
    print(f"claims given up: {given_up / (4 * studies):.0%}")
    assert 0 < wrong <= 0.05 * studies


@pytest.mark.slow
def test_the_interval_of_a_decided_claim_holds_the_truth():
    """Claims of true differences from none to large, the truth sought in the interval that the
    report shows: at most 5% of claims, decided or not, are decided with one that misses it."""
    rng = np.random.default_rng(1)
    truths = (0.3, 0.8, 1.5, 3.0)
    decided, missed = np.zeros(len(truths), int), np.zeros(len(truths), int)
    for _ in range(STUDIES):
        common = rng.normal(size=seeds_of(ROUNDS))
        family = [claim(drawn(rng, truth, common=common)) for truth in truths]
        for place, (one, truth) in enumerate(zip(after(family, ROUNDS), truths, strict=True)):
            if one.decided:
                decided[place] += 1
                missed[place] += (
                    not one.decision.estimate.low <= truth <= one.decision.estimate.high
                )
    coverage = 1 - missed.sum() / decided.sum()
    print(f"\nof {decided.sum()} decided claims {coverage:.2%} of intervals hold the truth")
    for truth, n, m in zip(truths, decided, missed, strict=True):
        print(f"truth {truth}: decided {n / STUDIES:.0%}, missed {m / STUDIES:.2%} of studies")
    assert decided.sum() > STUDIES
    assert coverage >= 0.95
    assert (missed <= stats.binom.ppf(0.999, STUDIES, 0.05)).all()
