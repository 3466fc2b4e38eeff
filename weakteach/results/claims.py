"""The claims of the publication: the difference of outcomes that each is about, and its margin.

The claims of the publication's abstract are primary. They are decided as one family, which has the
same size whichever of them a study asks. All others are secondary, and those of each experiment are
a family of their own (see ``deciding.py``). A margin is a tenth of what human labels bring over the
base student in the same experiment. Margins and primary claims are fixed here, before any arm
is compared.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from weakteach.results.cells import Cell
from weakteach.results.evidence import Found, Statement, gain, tenth, whole
from weakteach.statistics.decisions import Claim
from weakteach.statistics.joined import Joined, Missing, average, minus

# The margin of win rates, on both sides of one half.
WIN_MARGIN = 0.05


def _places(found: Found, *roles: str) -> set[str]:
    """The places of the x axis where there is a reward of each of these roles."""
    return set.intersection(*({cell.x for cell in found.of(role)} for role in roles))


def _shared(one: str, other: str) -> tuple[Callable[[Found], Joined], Callable[[Found], Joined]]:
    """The difference of two roles, and its margin, over the places of the axis that have both."""

    def difference(found: Found) -> Joined:
        both = _places(found, one, other)
        return found.minus(one, other, lambda cell: cell.x in both)

    def margin(found: Found) -> Joined:
        both = _places(found, one, other)
        return gain(found, lambda cell: cell.x in both)

    return difference, margin


def _but_main_student(found: Found) -> set[str]:
    """The places of weak and human labels but the main student's, which alone has all controls."""
    main = {cell.x for cell in found.of("random")}
    return _places(found, "weak", "human") - main


def _of_other_families(found: Found) -> Joined:
    others = _but_main_student(found)
    return found.minus("weak", "human", lambda cell: cell.x in others)


def _gain_of_other_families(found: Found) -> Joined:
    others = _but_main_student(found)
    return gain(found, lambda cell: cell.x in others)


def _all_teachers_minus_human(found: Found) -> Joined:
    """The mean over all teachers minus human labels, whatever their places on the axis."""
    return found.minus("weak", "human")


def _other_teachers_minus_human(found: Found) -> Joined:
    """All teachers but the main one minus human labels. The main teacher is found by the random
    errors: they are a control that only the main point has."""
    main = {cell.setting.weak for cell in found.of("random")}
    if not main:
        return Missing("which teacher is the main one is not known")
    return minus(
        found.mean("weak", lambda cell: cell.setting.weak not in main), found.mean("human")
    )


def _smallest_teacher_minus_largest(found: Found) -> Joined:
    """The smallest teacher minus the largest by the models' numbers of parameters, whatever their
    order; Missing while one of these is pending."""
    teachers = found.of("weak")
    unknown = [cell.setting.weak for cell in teachers if cell.setting.weak not in found.sizes]
    if unknown:
        return Missing(f"the size of {unknown[0]} is not known")
    sizes = {found.sizes[cell.setting.weak] for cell in teachers}
    if len(sizes) < 2:
        return Missing("all teachers are of one size")

    def of_size(size: int) -> Joined:
        return found.mean("weak", lambda cell: found.sizes[cell.setting.weak] == size)

    return minus(of_size(min(sizes)), of_size(max(sizes)))


def _at_smallest_fraction(cell: Cell, found: Found) -> bool:
    return Fraction(cell.x) == min((Fraction(one.x) for one in found.of("weak")), default=None)


def _with_minus_without_sft(found: Found) -> Joined:
    def mean(start: str) -> Joined:
        roles = ("weak", "human")
        return average([found.mean(role, lambda cell: cell.x == start) for role in roles])

    return minus(mean("with SFT"), mean("without SFT"))


def _reward_head_minus_dpo(found: Found) -> Joined:
    return minus(
        found.mean("weak", lambda cell: cell.setting.teacher == "reward head"),
        found.mean("weak", lambda cell: cell.setting.teacher == "DPO"),
    )


def _over_golds(of_one: Callable[[Found], Joined]) -> Callable[[Found], Joined]:
    """The mean over gold models of a difference in units of each model's own spread: the standard
    deviation, over prompts, of the rewards that it gives to the base students' responses (from the
    mean variance over students and seeds). The spread is fixed before any student is aligned. In
    plain rewards, a gold model of large rewards would decide alone."""

    def mean(found: Found) -> Joined:
        parts: list[Joined] = []
        for gold in dict.fromkeys(cell.of for cell in found.cells):
            own = Found(tuple(cell for cell in found.cells if cell.of == gold), found.sizes)
            spread = _spread(own)
            if isinstance(spread, Missing):
                return spread
            difference = of_one(own)
            parts.append(
                difference if isinstance(difference, Missing) else difference.times(1 / spread)
            )
        return average(parts)

    return mean


def _spread(found: Found) -> float | Missing:
    variances: list[float] = []
    for cell in found.of("base"):
        outcome = whole(cell)
        if isinstance(outcome, Missing):
            return outcome
        variances += outcome.matrix.var(axis=1, ddof=1).tolist()
    if not variances or not np.mean(variances) > 0:
        return Missing("a gold model tells no responses of base students apart")
    return float(np.sqrt(np.mean(variances)))


def _wins(found: Found) -> Joined:
    won = found.mean("weak", kind="verdicts")
    return won if isinstance(won, Missing) else won.plus(-0.5)


WEAK_MINUS_HUMAN, GAIN_THERE = _shared("weak", "human")
WEAK_MINUS_ALL, GAIN_WITH_ALL = _shared("weak", "human_all")

STATEMENTS = (
    Statement(
        "E1",
        Claim("E1", "Weak labels teach students of all sizes at least as well as human labels.",
              "at_least"),
        "weak minus human labels",
        WEAK_MINUS_HUMAN,
        GAIN_THERE,
        primary=True,
    ),
    Statement(
        "E2",
        Claim("E2 size", "The teacher's size has little effect.", "close"),
        "the smallest minus the largest teacher",
        _smallest_teacher_minus_largest,
        gain,
        primary=True,
    ),
    Statement(
        "E2",
        Claim("E2 human", "Labels of teachers of all sizes are at least as good as human labels.",
              "at_least"),
        "all teachers minus human labels",
        _all_teachers_minus_human,
        gain,
        primary=True,
    ),
    Statement(
        "E3",
        Claim("E3", "Weak labels teach students of other families at least as well.", "at_least"),
        "weak minus human labels",
        _of_other_families,
        _gain_of_other_families,
    ),
    Statement(
        "E4",
        Claim("E4", "A judge finds students of weak and of human labels about equally good.",
              "close"),
        "the win rate over one half",
        _wins,
        lambda found: WIN_MARGIN,
        kind="verdicts",
    ),
    Statement(
        "E5",
        Claim("E5", "Weak labels are at least as good in summarization.", "at_least"),
        "weak minus human labels",
        WEAK_MINUS_HUMAN,
        GAIN_THERE,
    ),
    Statement(
        "E6",
        Claim("E6", "The smallest labeled fraction is enough for labels as good as human ones.",
              "at_least"),
        "weak minus human labels",
        lambda found: found.minus(
            "weak", "human", lambda cell: _at_smallest_fraction(cell, found)
        ),
        lambda found: gain(found, lambda cell: _at_smallest_fraction(cell, found)),
        primary=True,
    ),
    Statement(
        "E7",
        Claim("E7 matched", "Keeping only the labels that humans agree with brings nothing.",
              "at_least"),
        "all weak labels minus the matched ones",
        lambda found: found.minus("weak", "matched"),
        gain,
    ),
    Statement(
        "E7",
        Claim("E7 mismatched", "Labels that humans disagree with still teach.", "greater"),
        "mismatched labels minus the base student",
        lambda found: found.minus("mismatched", "base"),
        None,
    ),
    Statement(
        "E8",
        Claim("E8", "Responses that weak labels choose have about the gold reward of those that "
              "humans choose.", "at_least"),
        "weak minus human labels",
        lambda found: found.minus("weak", "human", kind="label_gold"),
        # A tenth of what human labels tell apart: chosen minus rejected gold reward.
        lambda found: tenth(found.mean("human", kind="label_gap")),
        kind="label_gold",
    ),
    Statement(
        "E10",
        Claim("E10", "A judge is less consistent on pairs on which the labels differ.", "greater"),
        "matched minus mismatched pairs",
        lambda found: found.minus("matched", "mismatched", kind="consistency"),
        None,
        kind="consistency",
    ),
    Statement(
        "E11",
        Claim("E11", "Under all gold models weak labels are at least as good.", "at_least"),
        "weak minus human labels",
        _over_golds(WEAK_MINUS_HUMAN),
        _over_golds(GAIN_THERE),
        unit="spreads of each gold",
    ),
    Statement(
        "E12",
        Claim("E12", "Teachers of other architectures teach at least as well as humans.",
              "at_least"),
        "the other teachers minus human labels",
        _other_teachers_minus_human,
        gain,
    ),
    Statement(
        "E14",
        Claim("E14", "SFT on the labels before DPO makes better students.", "greater"),
        "with minus without SFT",
        _with_minus_without_sft,
        None,
    ),
    Statement(
        "E15",
        Claim("E15", "Weak labels are at least as good whatever the beta of DPO.", "at_least"),
        "weak minus human labels",
        WEAK_MINUS_HUMAN,
        GAIN_THERE,
    ),
    Statement(
        "E16",
        Claim("E16", "Over seeds of the split, weak labels are at least as good.", "at_least"),
        "weak minus human labels",
        _all_teachers_minus_human,
        gain,
    ),
    Statement(
        "E17",
        Claim("E17 all", "A teacher's errors are better to learn from than random ones.",
              "greater"),
        "weak minus random errors",
        lambda found: found.minus("weak", "random"),
        None,
    ),
    Statement(
        "E17",
        Claim("E17 mismatched", "Its errors alone are better to learn from than random ones alone.",
              "greater"),
        "mismatched minus random mismatched labels",
        lambda found: found.minus("mismatched", "random_mismatched"),
        None,
    ),
    Statement(
        "E18",
        Claim("E18", "A teacher with a reward head teaches about as well as one of DPO.", "close"),
        "a reward head minus DPO",
        _reward_head_minus_dpo,
        gain,
    ),
    Statement(
        "E1",
        Claim("R2", "Weak labels are at least as good as human labels of all pairs, those of the "
              "teacher included.", "at_least"),
        "weak minus all human labels",
        WEAK_MINUS_ALL,
        GAIN_WITH_ALL,
    ),
)  # fmt: skip
