"""What a study says about the claims that it was made to test.

A claim says that one mean difference between arms lies on one side of a boundary, or between two
boundaries. A family of claims is decided together (``decide``):

- supported: the estimate lies on the claimed side of every boundary, and p < 0.05;
- contradicted: it lies beyond a boundary, and p < 0.05;
- not decided: anything else, with the reason and how many seeds or prompts would decide it.

p is the two-sided p-value of a true difference on a boundary: the farthest boundary crossed or, if
none is crossed, the one with the largest p (two one-sided tests). It is adjusted after Holm for all
claims of the family. So before that adjustment a claim is supported exactly when the 95% interval
lies on its side of a fixed boundary, and contradicted exactly when it lies beyond. (Equivalence is
more often tested with the 90% interval; here the interval that is shown is the one that decides.)
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from weakteach.statistics.crossed import (
    Components,
    components,
    holm,
    mean,
    paired,
    squared_quantile,
)
from weakteach.statistics.estimate import CONFIDENCE, Estimate

Kind = Literal["at_least", "greater", "close"]
Verdict = Literal["supported", "contradicted", "not decided"]
SUPPORTED: Verdict = "supported"
CONTRADICTED: Verdict = "contradicted"
NOT_DECIDED: Verdict = "not decided"

LEVEL = 1 - CONFIDENCE
POWER = 0.8
MOST_SEEDS, MOST_PROMPTS = 1000, 1_000_000
ONE_SEED = "one seed says nothing of others"


@dataclass(frozen=True)
class Claim:
    """One sentence and what it means for a difference d and a margin m > 0.

    ``at_least``: d > -m (not inferior). ``close``: -m < d < m (equivalent). ``greater``: d > 0,
    without a margin; a claim that an outcome itself is positive is one of these.
    """

    id: str
    sentence: str
    kind: Kind


@dataclass(frozen=True, eq=False)
class Evidence:
    """Outcomes for a claim: ``difference`` [seeds, prompts] and, unless the claim is ``greater``,
    the ``margin``.

    The margin is a number, or a matrix like ``difference``: a fixed share of the gain that human
    labels bring over the base student, such as ``0.1 * (human - base)``. A matrix is only used if
    its own mean is shown to be above 0; its noise enters the test as that of the difference does,
    because d + m is tested against 0.

    ``left_out`` counts the prompts that are not in the matrices.
    """

    claim: Claim
    difference: np.ndarray
    margin: np.ndarray | float | None = None
    left_out: int = 0

    def mean(self, confidence: float = CONFIDENCE) -> Estimate:
        """The mean difference with its interval."""
        return replace(mean(self.difference, confidence), left_out=self.left_out)


@dataclass(frozen=True)
class Decision:
    """The verdict on a claim.

    ``estimate`` is that of the difference, ``margin`` the mean margin (None for ``greater``). ``p``
    is adjusted after Holm, ``p_alone`` is not; both are 1 for a claim that could not be ``tested``.
    ``reason`` says why a claim is not decided; it is empty for a decided one.

    ``seeds_needed``, with the present prompts, and ``prompts_needed``, with the present seeds, are
    the numbers that would decide an undecided claim with a power of 80% if the true difference and
    variances were the estimated ones: a rough guide, above all with few seeds. None means that not
    even ``MOST_SEEDS`` or ``MOST_PROMPTS`` would, or that the number was not looked for.
    """

    claim: Claim
    verdict: Verdict
    estimate: Estimate
    margin: float | None
    p: float
    p_alone: float
    reason: str = ""
    seeds_needed: int | None = None
    prompts_needed: int | None = None
    tested: bool = True


def decide(family: Sequence[Evidence], size: int | None = None) -> tuple[Decision, ...]:
    """Decide claims as one family, once, and return them in the order given; see ``rounds.py`` for
    several looks. ``size`` also counts the claims of the family that have no evidence, with p = 1.

    Raises ValueError when a claim lacks its margin or has one that it has no use for, when a margin
    is a number that is not positive or a matrix of another shape, and for outcomes that
    ``crossed.components`` refuses.
    """
    tested = [test(evidence) for evidence in family]
    size = len(tested) if size is None else size
    adjusted = holm([one.p_alone for one in tested], size)
    return tuple(
        _decision(one, float(p), LEVEL / size) for one, p in zip(tested, adjusted, strict=True)
    )


def power(parts: Components, seeds: int, prompts: int, level: float = LEVEL) -> float:
    """Probability that ``crossed.mean`` of ``seeds`` x ``prompts`` outcomes with the mean and the
    variances of ``parts`` is found different from 0, on the right side, at a two-sided ``level``.

    The part of the interval that comes from seeds varies as χ²(S - 1)/(S - 1), over which the
    power is averaged; the part from prompts is taken as known. Raises ValueError for fewer than
    2 seeds or prompts, or ``parts`` of a single seed.
    """
    if min(seeds, prompts, parts.seeds) < 2:
        raise ValueError("Power needs 2 seeds, 2 prompts, and variances from 2 seeds")
    by_seed = parts.seed_variance / seeds + parts.residual_variance / (seeds * prompts)
    by_prompt = parts.prompt_variance / prompts
    if by_seed + by_prompt == 0:
        return float(parts.mean != 0)
    # Middles of 100 slices of equal probability.
    spread = special.chdtri(seeds - 1, (np.arange(100) + 0.5) / 100) / (seeds - 1)
    half = np.sqrt(
        squared_quantile(seeds, level / 2) * by_seed * spread
        + squared_quantile(prompts, level / 2) * by_prompt
    )
    found = special.ndtr((abs(parts.mean) - half) / math.sqrt(by_seed + by_prompt))
    return float(found.mean())


@dataclass(frozen=True)
class Test:
    """The test of a claim before its family is known. ``deciding`` are the distances to the
    boundaries that have to be told from 0. ``p_alone`` is two-sided, and 1 for a claim that
    cannot be tested; ``untested`` says why it cannot, and is empty if it can."""

    __test__ = False  # it is no test class of pytest

    claim: Claim
    estimate: Estimate
    margin: float | None
    holds: bool
    p_alone: float
    untested: str
    deciding: tuple[Components, ...]


def test(evidence: Evidence) -> Test:
    """Test a claim by itself. Raises ValueError as ``decide`` does."""
    claim, estimate, margin = evidence.claim, evidence.mean(), _margin(evidence)
    above_low, below_high = (
        paired(evidence.difference, -margin),
        paired(margin, evidence.difference),
    )
    # The claim holds where the means of all of these are above 0.
    distances = [above_low, below_high] if claim.kind == "close" else [above_low]
    found = [mean(distance) for distance in distances]
    crossed = min(found, key=lambda one: one.value)
    holds = crossed.value > 0
    deciding = distances if holds else [distances[found.index(crossed)]]
    untested = ""
    if estimate.seeds == 1:
        untested = ONE_SEED
    elif isinstance(evidence.margin, np.ndarray) and not mean(margin).low > 0:
        untested = "the gain that the margin is a share of is not shown"
    p = max(one.p for one in found) if holds else crossed.p
    return Test(
        claim=claim,
        estimate=estimate,
        margin=None if evidence.margin is None else float(np.mean(evidence.margin)),
        holds=holds,
        p_alone=1.0 if untested else p,
        untested=untested,
        deciding=tuple(components(distance) for distance in deciding),
    )


def power_of(tested: Test, seeds: int, prompts: int, level: float) -> float:
    """A lower bound, at least 0, of the probability that ``seeds`` x ``prompts`` outcomes decide
    the claim at the two-sided ``level``, if true differences and variances are the estimated
    ones."""
    misses = sum(1 - power(parts, seeds, prompts, level) for parts in tested.deciding)
    return max(0.0, 1 - misses)


def _margin(evidence: Evidence) -> np.ndarray:
    claim, margin = evidence.claim, evidence.margin
    if (claim.kind == "greater") != (margin is None):
        has = "no margin" if margin is None else "a margin"
        raise ValueError(f"Claim {claim.id!r} ({claim.kind}) with {has}")
    if isinstance(margin, np.ndarray):
        return margin
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"Claim {claim.id!r}: margin {margin} is not above 0")
    return np.full(np.shape(evidence.difference), margin or 0.0)


def _decision(tested: Test, p: float, level: float) -> Decision:
    claim, alone = tested.claim, tested.p_alone
    decision = Decision(
        claim, NOT_DECIDED, tested.estimate, tested.margin, p, alone, tested.untested
    )
    if tested.untested:
        return replace(decision, tested=False)
    if p < LEVEL:
        return replace(decision, verdict=SUPPORTED if tested.holds else CONTRADICTED)

    def enough(seeds: int, prompts: int) -> bool:
        return power_of(tested, seeds, prompts, level) >= POWER

    seeds, prompts = tested.estimate.seeds, tested.estimate.prompts
    needed = (
        _fewest(range(2, MOST_SEEDS + 1), lambda n: enough(n, prompts)),
        _fewest(range(2, MOST_PROMPTS + 1), lambda n: enough(seeds, n)),
    )
    found = alone < LEVEL
    reason = "p < 0.05 alone, not within its family" if found else "too few seeds or prompts"
    return replace(decision, reason=reason, seeds_needed=needed[0], prompts_needed=needed[1])


def _fewest(numbers: range, enough: Callable[[int], bool]) -> int | None:
    """The first of ``numbers`` that is enough, if any; larger ones are taken to be enough, too."""
    place = bisect_left(numbers, True, key=enough)
    return numbers[place] if place < len(numbers) else None
