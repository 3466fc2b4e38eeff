"""Deciding claims in rounds, each with twice as many seeds as the one before, so that seeds are
spent only where an answer is still missing.

Round r = 1, 2, ... has 2^r seeds, which include those of the rounds before, and a fixed share of
the error that all rounds together may make: .1, .2, .3, .2, .1 of 5%, then half of what is left.
The shares sum to at most 1 however many rounds there are, so a study can go on with more seeds.

In each round the undecided claims of a family are tested after Holm at the round's level. A claim
without evidence in the round counts as one with p = 1, and so does one that was given up. A family
errs in at most 5% of studies, whichever claims are stopped at whatever time. An error is that a
true boundary is crossed. The first error can happen in round r only if one true boundary has
p <= level of r / (number of true boundaries), as all of them are still in the family by then. By
Bonferroni over claims and rounds that happens in at most the sum of the levels. The p of a decision
is adjusted for rounds, too (divided by the round's share), so that p < 0.05 decides.

A claim is given up after a round, from the second one on, if the estimated difference and variances
leave it a power below ``LEAST_POWER`` in each of the rounds to come.

All of this is recomputed from the outcomes of all rounds, in their order: no other state is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weakteach.statistics.crossed import holm
from weakteach.statistics.decisions import (
    CONTRADICTED,
    LEVEL,
    NOT_DECIDED,
    POWER,
    SUPPORTED,
    Decision,
    Evidence,
    Test,
    power_of,
    test,
)
from weakteach.statistics.schedule import MOST_ROUNDS, seeds_of, share

# A claim that is less likely than this to be decided in any round to come gets no more seeds.
LEAST_POWER = 0.2
# The spread of two seeds tells too little to give a claim up.
FIRST_TO_GIVE_UP = 2


@dataclass(frozen=True)
class Standing:
    """Where a claim stands after some rounds.

    ``decision`` is from ``round``, in which the claim was decided or was last seen, or after which
    it was given up; it is None before any evidence. Its interval is at the round's level, adjusted
    for the family as the test is, so that it leaves out a fixed boundary exactly when the claim is
    decided; ``confidence`` is the level of that interval. ``power`` is the greatest power in any
    round to come, by the estimates of ``round``.
    """

    decision: Decision | None = None
    round: int = 0
    given_up: bool = False
    power: float = 1.0
    confidence: float = 1 - LEVEL

    @property
    def decided(self) -> bool:
        return self.decision is not None and self.decision.verdict != NOT_DECIDED

    @property
    def open(self) -> bool:
        return not self.decided and not self.given_up


def decide_rounds(
    evidence: Sequence[Sequence[Evidence | None]], rounds: int
) -> tuple[Standing, ...]:
    """Decide a family of claims by the evidence of each round: ``evidence`` [rounds so far][claims]
    is None where a claim has no evidence from the round's seeds. ``rounds`` is how many rounds
    there will be in all.

    A claim takes part in a round if it is open and took part in all rounds before. ``seeds_needed``
    of an undecided claim is the number of seeds of the first later round, also beyond ``rounds``,
    that would decide it with a power of 80%. Raises ValueError as ``decide`` does, and for evidence
    whose number of seeds is not the round's.
    """
    standings = [Standing() for _ in evidence[0]] if evidence else []
    last: dict[int, tuple[Test, int]] = {}
    for number, found in enumerate(evidence, 1):
        undecided = sum(not one.decided for one in standings)
        tested: dict[int, Test] = {}
        for place, (one, before) in enumerate(zip(found, standings, strict=True)):
            if one is not None and before.open and before.round == number - 1:
                tested[place] = test(one)
                if len(one.difference) != seeds_of(number):
                    raise ValueError(f"{len(one.difference)} seeds in round {number}")
        for place, standing in _of_round(number, rounds, tested, found, undecided).items():
            standings[place] = standing
            last[place] = tested[place], undecided
    return tuple(
        standing if place not in last else _with_needs(standing, *last[place])
        for place, standing in enumerate(standings)
    )


def _of_round(
    number: int,
    rounds: int,
    tested: dict[int, Test],
    found: Sequence[Evidence | None],
    undecided: int,
) -> dict[int, Standing]:
    """The standings of the claims that take part in a round, by their places."""
    level = share(number) * LEVEL
    p_values = [one.p_alone for one in tested.values()]
    adjusted = holm(p_values, undecided)
    steps = _steps(p_values, adjusted < level)
    standings = {}
    for (place, one), p, step in zip(tested.items(), adjusted, steps, strict=True):
        evidence = found[place]
        assert evidence is not None  # it was tested
        confidence = 1 - level / (undecided - step)
        decision = Decision(
            claim=one.claim,
            verdict=NOT_DECIDED,
            estimate=evidence.mean(confidence),
            margin=one.margin,
            p=min(1.0, float(p) / share(number)),
            p_alone=min(1.0, one.p_alone / share(number)),
            tested=not one.untested,
        )
        if decision.tested and p < level:
            decision = replace(decision, verdict=SUPPORTED if one.holds else CONTRADICTED)
            standings[place] = Standing(decision, number, confidence=confidence)
            continue
        chance = _chance(one, range(number + 1, rounds + 1), undecided)
        standings[place] = Standing(
            replace(decision, reason=one.untested or "too few seeds"),
            number,
            given_up=FIRST_TO_GIVE_UP <= number < rounds and chance < LEAST_POWER,
            power=chance,
            confidence=confidence,
        )
    return standings


def _steps(p_values: Sequence[float], decided: np.ndarray) -> list[int]:
    """How many claims Holm decides before it comes to each one: for a claim that it decides, those
    with a smaller p; for any other claim, all that it decides."""
    ranks = np.argsort(np.argsort(p_values, kind="stable"), kind="stable")
    return [int(min(rank, decided.sum())) for rank in ranks]


def _chance(tested: Test, rounds: range, undecided: int) -> float:
    """The greatest power in any of these rounds, at the first step of Holm."""
    return max((_power(tested, number, undecided) for number in rounds), default=0.0)


def _power(tested: Test, number: int, undecided: int) -> float:
    level = share(number) * LEVEL / undecided
    return power_of(tested, seeds_of(number), tested.estimate.prompts, level)


def _with_needs(standing: Standing, tested: Test, undecided: int) -> Standing:
    if standing.decided or standing.decision is None:
        return standing
    later = range(standing.round + 1, MOST_ROUNDS + 1)
    enough = (n for n in later if _power(tested, n, undecided) >= POWER)
    number = next(enough, None)
    needed = None if number is None else seeds_of(number)
    return replace(standing, decision=replace(standing.decision, seeds_needed=needed))
