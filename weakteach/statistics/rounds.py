"""Deciding claims in rounds, each of twice as many seeds as the one before, so that seeds are spent
where an answer is missing.

Round r = 1, 2, ... has 2^r seeds, those of the rounds before among them, and a fixed share of the
error that all rounds together may make: .1, .2, .3, .2, .1 of 5%, then half of what is left. The
shares sum to 1 however many rounds there are, so that a study can go on with more seeds.

In a round the claims of a family that are not decided yet are decided after Holm at the round's
level. A claim without evidence in the round counts as one with p = 1, and so does one that was
given up. A family errs in at most 5% of studies, whatever is stopped when: that a true boundary is
crossed in round r needs p <= level of r / (number of true boundaries) for one of them, as they all
were in the family of the round, unless one had been crossed before; by Bonferroni over claims and
rounds that happens in at most the sum of the levels. The p of a decision is adjusted for rounds,
too (divided by the round's share), so that p < 0.05 decides.

A claim is given up after a round, from the second on, in which the estimated difference and
variances leave it a power below ``LEAST_POWER`` in each of the rounds to come.

All of this is recomputed from the outcomes of all rounds, in their order: nothing else is kept.
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

# A claim whose chance to be decided is smaller gets no more seeds.
LEAST_POWER = 0.2
# The spread of two seeds tells too little to give a claim up.
FIRST_TO_GIVE_UP = 2


@dataclass(frozen=True)
class Standing:
    """Where a claim stands after some rounds.

    ``decision`` is that of the ``round`` that it was decided in, given up after, or seen in last;
    its interval is at that round's level, adjusted for the family as its test is: it leaves out a
    fixed boundary just when the claim is decided. None before any evidence. ``confidence`` is of
    that interval. ``power`` is the greatest in a round to come, by the estimates of that round.
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
    """Decide a family of claims from what each round has: ``evidence`` [rounds so far][claims],
    None where a claim has no evidence of the round's seeds. ``rounds`` is how many there will be.

    A claim takes part in a round if it did in all rounds before. ``seeds_needed`` of a claim that
    is not decided is the size of the first later round, of these or beyond, that would decide it
    with a power of 80%. Raises ValueError as ``decide`` does, and for evidence of another number
    of seeds than the round's.
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
    adjusted = holm([*p_values, *[1.0] * (undecided - len(tested))])[: len(tested)]
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
    """How many claims Holm has decided before it comes to each: the smaller p of those that it
    decides, and all that it decides for the others."""
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
