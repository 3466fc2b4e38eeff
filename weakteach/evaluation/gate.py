"""What to do with a teacher: advice by a pure function of its facts, with the numbers behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

from scipy import stats

from weakteach.evaluation.teaching import Confident, Rival, Route, TeacherFacts
from weakteach.statistics.estimate import CONFIDENCE

Kind = Literal["use", "confident", "collect", "other"]

CHANCE = 0.5
POWER = 0.8
# If more than this many times the labels at hand were needed, collecting them is no plan.
MOST_TIMES = 10
# The interval of a share with fewer pairs than these cannot tell it from luck, and fewer more
# change little.
FEWEST_PAIRS = 20


@dataclass(frozen=True)
class Advice:
    """What to do with a teacher, in one ``sentence`` and in the numbers that belong to its kind.

    - ``use``: use all of its labels. There are ``labels`` of them, with this ``accuracy``.
    - ``confident``: use the ``share`` of its labels with the largest margins. There are ``labels``
      of them, with this ``accuracy``.
    - ``collect``: collect ``more`` human labels, which would tell this teacher from chance.
    - ``other``: this teacher is no good; ``instead`` names one to try, None if none is known.

    ``told`` says whether the teacher is told from chance, and ``goes_on`` whether some of its
    labels are to be used.
    """

    kind: Kind
    sentence: str
    threshold: float
    told: bool
    labels: int | None = None
    accuracy: float | None = None
    share: float | None = None
    more: int | None = None
    instead: str | None = None

    @property
    def goes_on(self) -> bool:
        return self.kind in ("use", "confident")


@dataclass(frozen=True)
class PricedRoute:
    """A route with the number of human labels that it asks for and what they cost."""

    human_share: float
    human_labels: int
    accuracy: float
    low: float
    high: float
    at_random: float
    cost: float | None


def gate(
    facts: TeacherFacts,
    to_label: int,
    threshold: float = CHANCE,
    larger: Sequence[str] = (),
) -> Advice:
    """What to do with a teacher that has these facts and is to label ``to_label`` pairs.

    The teacher is told from chance if the whole interval of its accuracy lies above ``threshold``;
    then its labels are used. If not, the first of these that holds is the advice:

    1. another model, tried on the same pairs, is told from chance and more accurate: try that one;
    2. the labels with the largest margins are told from chance, by an interval that holds for all
       shares at once: use the largest such share;
    3. more labels would tell it from chance, in all at most MOST_TIMES those at hand: collect them;
    4. it is no good: try the most accurate other model if that is more accurate, or else the first
       of the ``larger`` models.

    Raises ValueError for a threshold outside of (0, 1).
    """
    if not 0 < threshold < 1:
        raise ValueError(f"The gate's threshold is {threshold}, not between 0 and 1")
    accuracy = facts.accuracy
    measured = f"{accuracy.value:.1%} (95% interval {accuracy.low:.1%} to {accuracy.high:.1%})"
    if accuracy.low > threshold:
        return Advice(
            "use",
            f"Use the labels of {facts.teacher}: about {accuracy.value:.0%} of the {to_label:,} "
            f"agree with a human; measured {measured} on {facts.pairs} held-out pairs.",
            threshold, told=True, labels=to_label, accuracy=accuracy.value,
        )  # fmt: skip
    reason = (
        f"{facts.teacher} is not told from {_chance(threshold)}: {measured} on {facts.pairs} "
        "held-out pairs"
    )
    if rival := _better(facts, threshold):
        return _try(rival.name, f"{reason}. {_reached(rival)}.", threshold)
    if part := _confident(facts, threshold):
        labels = round(part.share * to_label)
        return Advice(
            "confident",
            f"Use the confident part: the {labels:,} labels ({part.share:.0%}) with the largest "
            f"margins, of which about {part.accuracy.value:.0%} agree with a human; as a whole "
            f"{reason}.",
            threshold, told=False, labels=labels, accuracy=part.accuracy.value, share=part.share,
        )  # fmt: skip
    if found := _more(facts, threshold):
        more, hope = found
        return Advice(
            "collect", f"Collect about {more:,} more human labels: {reason}, and {hope}.",
            threshold, told=False, more=more,
        )  # fmt: skip
    others = [rival for rival in facts.rivals if not rival.same_model]
    if others:
        best = max(others, key=lambda rival: rival.accuracy.value)
        if best.accuracy.value > accuracy.value:
            return _try(best.name, f"{reason}. {_reached(best)}.", threshold)
    return _try(larger[0] if larger else None, f"{reason}.", threshold)


def priced(routing: Sequence[Route], to_label: int, price: float | None) -> tuple[PricedRoute, ...]:
    """The routes for ``to_label`` pairs at ``price`` per human label, None if that is not known.
    Raises ValueError if the price or the number of pairs is below 0."""
    if (price is not None and price < 0) or to_label < 0:
        raise ValueError(f"No price of {to_label} labels at {price}")
    return tuple(
        PricedRoute(
            human_share=route.human_share,
            human_labels=round(route.human_share * to_label),
            accuracy=route.accuracy.value,
            low=route.accuracy.low,
            high=route.accuracy.high,
            at_random=route.at_random,
            cost=None if price is None else round(route.human_share * to_label) * price,
        )
        for route in routing
    )


def pairs_to_tell(accuracy: float, threshold: float, widened: float = 1.0) -> float:
    """How many pairs it takes to find a teacher of this ``accuracy`` p above the ``threshold`` t
    with a probability of POWER: (z₁√(t(1 - t)) + z₂√(p(1 - p)))²/(p - t)², times ``widened``.
    Infinite for an accuracy at or below the threshold."""
    if accuracy <= threshold:
        return float("inf")
    test = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * sqrt(threshold * (1 - threshold))
    power = float(stats.norm.ppf(POWER)) * sqrt(accuracy * (1 - accuracy))
    return widened * ((test + power) / (accuracy - threshold)) ** 2


def _better(facts: TeacherFacts, threshold: float) -> Rival | None:
    """The most accurate of the other models that are told from chance and beat the judged one."""
    found = [
        rival
        for rival in facts.rivals
        if not rival.same_model
        and rival.accuracy.low > threshold
        and rival.accuracy.value > facts.accuracy.value
    ]
    return max(found, key=lambda rival: rival.accuracy.value, default=None)


def _confident(facts: TeacherFacts, threshold: float) -> Confident | None:
    """The largest share of the most confident labels that is told from chance."""
    found = [
        part
        for part in facts.confident
        if part.share < 1 and part.sure > threshold and part.accuracy.prompts >= FEWEST_PAIRS
    ]
    return max(found, key=lambda part: part.share, default=None)


def _more(facts: TeacherFacts, threshold: float) -> tuple[int, str] | None:
    """The number of human labels to collect, and in words what they would do; None if they are too
    many. They are at least FEWEST_PAIRS, and taken to be as alike within prompts as those at hand.
    They would tell the measured accuracy from chance or, where that is known to take fewer, raise
    it to the wanted accuracy by the learning curve, which would be told."""
    widened = facts.pairs / facts.independent_pairs
    fewest = pairs_to_tell(facts.accuracy.value, threshold, widened)
    hope = "so many more would tell it if its accuracy is what it seems"
    reach = facts.curve.reach if facts.curve else None
    if reach and reach.told and reach.labels:
        there = max(reach.labels, pairs_to_tell(reach.wanted, threshold, widened))
        if there < fewest:
            fewest = there
            hope = (
                f"by its learning curve so many more would raise its accuracy to {reach.wanted:.0%}"
                ", which would be told"
            )
    if fewest > MOST_TIMES * facts.pairs:
        return None
    return max(FEWEST_PAIRS, ceil(fewest) - facts.pairs), hope


def _try(name: str | None, reason: str, threshold: float) -> Advice:
    what = f"Try {name}." if name else "Try a larger model, or labels that agree more."
    return Advice(
        "other", f"This teacher is no good: {reason} {what}", threshold, told=False, instead=name
    )


def _reached(rival: Rival) -> str:
    accuracy = rival.accuracy
    return (
        f"{rival.name} reached {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) on "
        "the same pairs"
    )


def _chance(threshold: float) -> str:
    return "chance" if threshold == CHANCE else f"{threshold:.0%}"
