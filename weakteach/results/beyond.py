"""Claims of the experiments beyond the publication, like those of ``claims.py``: secondary, those
of each experiment a family of their own, fixed before any arm was compared."""

from collections.abc import Callable
from fractions import Fraction

from weakteach.results.claims import STATEMENTS, Found, Statement, gain, tenth
from weakteach.statistics.decisions import Claim
from weakteach.statistics.joined import Joined, average, minus
from weakteach.study.roles import TOP, WEIGHTINGS, TeacherKind

OTHER_WEIGHTINGS = tuple(role for role in WEIGHTINGS if role != "weighted")


def _weighted_minus(found: Found, *roles: str) -> Joined:
    return minus(found.mean("weighted"), average([found.mean(role) for role in roles]))


def _weighted_minus_human(found: Found) -> Joined:
    return found.minus("weighted", "human")


def _gain_over_losses(found: Found) -> Joined:
    """Base students know no loss: all losses share them."""
    return tenth(minus(found.mean("human"), found.mean("base")))


def _at_smallest(found: Found) -> Joined:
    """Human labels of all pairs depend on no fraction."""
    smallest = min((Fraction(cell.x) for cell in found.of("weighted")), default=Fraction(1))
    return found.minus("weighted", "human_all", lambda cell: Fraction(cell.x) == smallest)


def _accuracy(found: Found, teacher: TeacherKind) -> Joined:
    """Of one kind of teacher on the test pairs."""
    return found.mean("weak", lambda cell: cell.setting.teacher == teacher, "teacher_accuracy")


def _reward_head_minus(teacher: TeacherKind) -> Callable[[Found], Joined]:
    return lambda found: minus(_accuracy(found, "reward head"), _accuracy(found, teacher))


BEYOND_STATEMENTS = (
    Statement(
        "C1",
        Claim("C1 weak", "Weighted by confidence, weak labels teach better, over three losses.",
              "greater"),
        "weighted minus plain weak labels",
        lambda found: _weighted_minus(found, "weak"),
        None,
    ),
    Statement(
        "C1",
        Claim("C1 human", "Weighted by confidence, weak labels are at least as good as human ones, "
              "over three losses.", "at_least"),
        "weighted weak minus human labels",
        _weighted_minus_human,
        _gain_over_losses,
    ),
    Statement(
        "C1",
        Claim("C1 soft", "Soft labels of calibrated confidence teach better than hard ones.",
              "greater"),
        "soft minus plain weak labels, DPO",
        lambda found: found.minus("soft", "weak", lambda cell: cell.x == "usual"),
        None,
    ),
    Statement(
        "C2",
        Claim("C2 SFT", "A teacher with a reward head labels more as humans do than one of SFT and "
              "DPO.", "greater"),
        "accuracy of a reward head minus that of SFT and DPO",
        _reward_head_minus("DPO"),
        None,
    ),
    Statement(
        "C2",
        Claim("C2 alone", "A teacher with a reward head labels more as humans do than one of DPO "
              "alone.", "greater"),
        "accuracy of a reward head minus that of DPO alone",
        _reward_head_minus("DPO alone"),
        None,
    ),
    Statement(
        "C3",
        Claim("C3", "Weighting all weak labels is better than keeping the most confident ones.",
              "greater"),
        "weighted minus the mean of the top 30, 40 and 50 %",
        lambda found: _weighted_minus(found, *TOP),
        None,
    ),
    Statement(
        "C4",
        Claim("C4", "The confidence weighs better than other functions of the margin.", "greater"),
        "weights C1 minus the mean of C2 to C4",
        lambda found: _weighted_minus(found, *OTHER_WEIGHTINGS),
        None,
    ),
    Statement(
        "C5",
        Claim("C5", "With the fewest human labels, weighted weak labels are at least as good as "
              "human labels of all pairs.", "at_least"),
        "weighted weak minus all human labels",
        _at_smallest,
        gain,
    ),
    Statement(
        "R11",
        Claim("R11 few", "Who has human labels of some pairs gains from weak labels of the others.",
              "greater"),
        "both minus human labels of the labeled part, as many updates",
        lambda found: found.minus("both", "few_long"),
        None,
    ),
    Statement(
        "R11",
        Claim("R11 all", "Human labels of some pairs and weak ones of the others are at least as "
              "good as human labels of all.", "at_least"),
        "both minus all human labels",
        lambda found: found.minus("both", "human_all"),
        gain,
    ),
)  # fmt: skip
ALL_STATEMENTS = (*STATEMENTS, *BEYOND_STATEMENTS)
