"""Claims of the experiments beyond the publication, stated like those of ``claims.py``. All of them
are secondary, those of each experiment are a family of their own, and they were fixed before any
arm was compared.

Shares of pairs are compared with one half, which is chance. A margin of shares is a tenth of what
lies beyond chance."""

from collections.abc import Callable
from fractions import Fraction

from weakteach.results.claims import STATEMENTS
from weakteach.results.evidence import Found, Statement, gain, tenth
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.decisions import Claim
from weakteach.statistics.joined import Joined, Missing, average, minus
from weakteach.study.arms import MOST_EPOCHS
from weakteach.study.experiment import Experiment
from weakteach.study.roles import RETRAINED, TOP, WEIGHTINGS, TeacherKind

CHANCE = 0.5

OTHER_WEIGHTINGS = tuple(role for role in WEIGHTINGS if role != "weighted")


def _weighted_minus(found: Found, *roles: str) -> Joined:
    return minus(found.mean("weighted"), average([found.mean(role) for role in roles]))


def _weighted_minus_human(found: Found) -> Joined:
    return found.minus("weighted", "human")


def _at_smallest(found: Found) -> Joined:
    """Weighted weak labels minus human labels of all pairs, at the smallest fraction. The latter
    are the same at every fraction."""
    smallest = min((Fraction(cell.x) for cell in found.of("weighted")), default=Fraction(1))
    return found.minus("weighted", "human_all", lambda cell: Fraction(cell.x) == smallest)


def _accuracy(found: Found, teacher: TeacherKind) -> Joined:
    """The accuracy of one kind of teacher on the test pairs."""
    return found.mean("weak", lambda cell: cell.setting.teacher == teacher, "teacher_accuracy")


def _reward_head_minus(teacher: TeacherKind) -> Callable[[Found], Joined]:
    return lambda found: minus(_accuracy(found, "reward head"), _accuracy(found, teacher))


def _beyond_chance(share: Joined) -> Joined:
    return share if isinstance(share, Missing) else share.plus(-CHANCE)


def _alike(found: Found, retrained: bool) -> Joined:
    """How often teachers label as the main one: those of another seed, or those of other sizes."""
    return found.mean(
        "weak", lambda cell: cell.setting.teacher.endswith(RETRAINED) == retrained, "alike"
    )


def _transferred(place: int) -> Callable[[Found], Joined]:
    """Accuracy beyond chance in the second domain (``place`` 0) or in the main one (1): the
    experiment measures them in this order."""

    def beyond_chance(found: Found) -> Joined:
        domains = list(dict.fromkeys(cell.x for cell in found.of("weak", kind="transfer")))
        if len(domains) != 2:
            return Missing("the study has no second domain")
        return _beyond_chance(
            found.mean("weak", lambda cell: cell.x == domains[place], kind="transfer")
        )

    return beyond_chance


def _target_minus_weak(found: Found) -> Joined:
    """The difference for the same teacher: the experiment has weak labels of others, too."""
    same = {cell.setting for cell in found.of("target")}
    return found.minus("target", "weak", lambda cell: cell.setting in same)


def _still_gaining(experiment: Experiment, outcomes: Outcomes) -> str:
    """The caveat for trainings that should end when held-out pairs gain no more, but ran out of
    epochs before; empty if none did."""
    measures = [m for m in experiment.measures if (m.role, m.kind) == ("few_stopped", "reward")]
    students = [measure for measure in measures if outcomes.facts(measure)]
    gained = sum(map(outcomes.still_gained, students))
    if not gained:
        return ""
    return (
        f"In {gained} of {len(students)} trainings held-out pairs still gained after "
        f"{MOST_EPOCHS:g} epochs, the most that are tried."
    )


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
        gain,
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
        kind="teacher_accuracy",
    ),
    Statement(
        "C2",
        Claim("C2 alone", "A teacher with a reward head labels more as humans do than one of DPO "
              "alone.", "greater"),
        "accuracy of a reward head minus that of DPO alone",
        _reward_head_minus("DPO alone"),
        None,
        kind="teacher_accuracy",
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
        "R5",
        Claim("R5 chance", "A teacher labels held-out pairs as humans do more often than chance.",
              "greater"),
        "accuracy minus one half",
        lambda found: _beyond_chance(found.mean("weak", kind="teacher_accuracy")),
        None,
        kind="teacher_accuracy",
    ),
    Statement(
        "R5",
        Claim("R5 scaling", "Temperature scaling on labeled pairs lowers the calibration error on "
              "held-out ones.", "greater"),
        "calibration error as claimed minus that after scaling",
        lambda found: found.mean("weak", kind="ece_gain"),
        None,
        kind="ece_gain",
    ),
    Statement(
        "R6",
        Claim("R6 seeds", "Teachers that differ in their seed alone label alike more often than "
              "they agree with humans.", "greater"),
        "pairs labeled alike minus accuracy",
        lambda found: minus(
            _alike(found, retrained=True), found.mean("weak", kind="teacher_accuracy")
        ),
        None,
        kind="alike",
    ),
    Statement(
        "R6",
        Claim("R6 sizes", "Teachers of other sizes label alike at least about as often as those of "
              "another seed.", "at_least"),
        "pairs labeled alike, other sizes minus another seed",
        lambda found: minus(_alike(found, retrained=False), _alike(found, retrained=True)),
        # A tenth of what teachers of another seed label alike beyond chance.
        lambda found: tenth(_beyond_chance(_alike(found, retrained=True))),
        kind="alike",
    ),
    Statement(
        "R8",
        Claim("R8 there", "A teacher of the main domain labels the pairs of the second one better "
              "than chance.", "greater"),
        "accuracy in the second domain minus one half",
        _transferred(0),
        None,
        kind="transfer",
    ),
    Statement(
        "R8",
        Claim("R8 back", "A teacher of the second domain labels the pairs of the main one better "
              "than chance.", "greater"),
        "accuracy in the main domain minus one half",
        _transferred(1),
        None,
        kind="transfer",
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
        Claim("R11 stopped", "Who has human labels of some pairs, and trains on them as long as "
              "that helps, gains from weak labels of the others.", "greater"),
        "both minus human labels of the labeled part, until held-out ones gain no more",
        lambda found: found.minus("both", "few_stopped"),
        None,
        caveat=_still_gaining,
    ),
    Statement(
        "R11",
        Claim("R11 all", "Human labels of some pairs and weak ones of the others are at least as "
              "good as human labels of all.", "at_least"),
        "both minus all human labels",
        lambda found: found.minus("both", "human_all"),
        gain,
    ),
    Statement(
        "R12",
        Claim("R12 target", "The teacher's margin is a better target than its choice.", "greater"),
        "the margin as target minus plain weak labels",
        _target_minus_weak,
        None,
    ),
    Statement(
        "R12",
        Claim("R12 ensemble", "Teachers that vote, weighted by how far they agree, teach better "
              "than they do one by one.", "greater"),
        "the vote minus the mean of its members",
        lambda found: found.minus("ensemble", "weak"),
        None,
    ),
)  # fmt: skip
ALL_STATEMENTS = (*STATEMENTS, *BEYOND_STATEMENTS)
