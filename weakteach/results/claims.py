"""The claims of the publication, and what the outcomes of a study say of them.

All claims of one study are decided as one family. Margins are a tenth of what human labels bring
over the base student in the same experiment, fixed here before any arm was compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from weakteach.results.cells import Cell, cells_of
from weakteach.results.findings import ClaimRow
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.decisions import Claim, Decision, Evidence, decide
from weakteach.study.experiments import Experiment

MARGIN = 0.1
# Around one half, of win rates.
WIN_MARGIN = 0.05

# The measures that claims are about.
KINDS = ("reward", "verdicts", "consistency", "label_gold", "label_gap")

Matrix = np.ndarray | None


@dataclass(frozen=True)
class Found:
    """The cells of one experiment, and means over several of them."""

    cells: tuple[Cell, ...]

    def mean(self, role: str, where: Callable[[Cell], bool] = lambda cell: True) -> Matrix:
        """Mean over the cells of a role, [seeds, prompts]; None unless all of them are there, of
        the same seeds and prompts."""
        wanted = [cell for cell in self.cells if cell.role == role and where(cell)]
        matrices = [cell.matrix for cell in wanted if cell.matrix is not None and not cell.pending]
        if not wanted or len(matrices) < len(wanted):
            return None
        if len({matrix.shape for matrix in matrices}) > 1:
            return None
        return np.mean(matrices, axis=0)

    def minus(
        self, one: str, other: str, where: Callable[[Cell], bool] = lambda cell: True
    ) -> Matrix:
        return minus(self.mean(one, where), self.mean(other, where))


@dataclass(frozen=True)
class Statement:
    """A claim of an experiment: its difference, and the gain that its margin is a share of."""

    experiment: str
    claim: Claim
    difference: Callable[[Found], Matrix]
    margin: Callable[[Found], Matrix | float] | None


def minus(one: Matrix, other: Matrix) -> Matrix:
    """Paired difference; None unless both are there, of the same seeds and prompts."""
    if one is None or other is None or one.shape != other.shape:
        return None
    return one - other


def _gain(found: Found) -> Matrix:
    """The margin: a share of what human labels bring over the base student."""
    gain = found.minus("human", "base", _basic)
    return None if gain is None else MARGIN * gain


def _basic(cell: Cell) -> bool:
    return cell.kind == "reward"


def _shared(found: Found, one: str, other: str, but: Sequence[str] = ()) -> Matrix:
    """The difference of two roles over the places of the axis that have both."""
    places = [{cell.x for cell in found.cells if cell.role == role} for role in (one, other)]
    both = (places[0] & places[1]) - set(but)
    return found.minus(one, other, lambda cell: _basic(cell) and cell.x in both)


def _weak_minus_human(found: Found) -> Matrix:
    return _shared(found, "weak", "human")


def _of_other_families(found: Found) -> Matrix:
    """Without the main student, which alone has all controls."""
    main = [cell.x for cell in found.cells if cell.role == "random"]
    return _shared(found, "weak", "human", main)


def _weak_minus_main_human(found: Found) -> Matrix:
    """Where the axis is who labels: the mean of all teachers against the same human labels."""
    return found.minus("weak", "human", _basic)


def _smallest_teacher_minus_largest(found: Found) -> Matrix:
    weak = [cell for cell in found.cells if cell.role == "weak" and _basic(cell)]
    if len(weak) < 2:
        return None
    return minus(weak[0].matrix, weak[-1].matrix)


def _at_smallest_fraction(found: Found) -> Matrix:
    fractions = [cell.x for cell in found.cells if cell.role == "weak"]
    if not fractions:
        return None
    smallest = min(fractions, key=Fraction)
    return found.minus("weak", "human", lambda cell: cell.x == smallest)


def _with_minus_without_sft(found: Found) -> Matrix:
    def mean(start: str) -> Matrix:
        both = [
            found.mean(role, lambda cell: cell.x == start and _basic(cell))
            for role in ("weak", "human")
        ]
        return None if both[0] is None or both[1] is None else (both[0] + both[1]) / 2

    return minus(mean("with SFT"), mean("without SFT"))


def _reward_head_minus_dpo(found: Found) -> Matrix:
    kinds = ("reward head", "DPO")
    head, dpo = (
        found.mean("weak", lambda cell, kind=kind: cell.setting.teacher == kind)  # type: ignore[misc]
        for kind in kinds
    )
    return minus(head, dpo)


def _wins(found: Found) -> Matrix:
    won = found.mean("weak", lambda cell: cell.kind == "verdicts")
    return None if won is None else won - 0.5


def _label_margin(found: Found) -> Matrix:
    """A share of what human labels tell apart: gold of the chosen over the rejected response."""
    gap = found.mean("human", lambda cell: cell.kind == "label_gap")
    return None if gap is None else MARGIN * gap


STATEMENTS = (
    Statement(
        "E1",
        Claim("E1", "Weak labels teach students of all sizes at least as well as human labels.",
              "at_least"),
        _weak_minus_human,
        _gain,
    ),
    Statement(
        "E2",
        Claim("E2 size", "The teacher's size has little effect.", "close"),
        _smallest_teacher_minus_largest,
        _gain,
    ),
    Statement(
        "E2",
        Claim("E2 human", "Labels of teachers of all sizes are at least as good as human labels.",
              "at_least"),
        _weak_minus_main_human,
        _gain,
    ),
    Statement(
        "E3",
        Claim("E3", "Weak labels teach students of other families at least as well.", "at_least"),
        _of_other_families,
        _gain,
    ),
    Statement(
        "E4",
        Claim("E4", "A judge finds students of weak and of human labels about equally good.",
              "close"),
        _wins,
        lambda found: WIN_MARGIN,
    ),
    Statement(
        "E5",
        Claim("E5", "Weak labels are at least as good in summarization.", "at_least"),
        _weak_minus_human,
        _gain,
    ),
    Statement(
        "E6",
        Claim("E6", "The smallest labeled fraction is enough for labels as good as human ones.",
              "at_least"),
        _at_smallest_fraction,
        _gain,
    ),
    Statement(
        "E7",
        Claim("E7 matched", "Keeping only the labels that humans agree with brings nothing.",
              "at_least"),
        lambda found: found.minus("weak", "matched"),
        _gain,
    ),
    Statement(
        "E7",
        Claim("E7 mismatched", "Labels that humans disagree with still teach.", "greater"),
        lambda found: found.minus("mismatched", "base"),
        None,
    ),
    Statement(
        "E8",
        Claim("E8", "Responses that weak labels choose have about the gold reward of those that "
              "humans choose.", "at_least"),
        lambda found: found.minus("weak", "human", lambda cell: cell.kind == "label_gold"),
        _label_margin,
    ),
    Statement(
        "E10",
        Claim("E10", "A judge is less consistent on pairs on which the labels differ.", "greater"),
        lambda found: found.minus("matched", "mismatched"),
        None,
    ),
    Statement(
        "E11",
        Claim("E11", "Under all gold models weak labels are at least as good.", "at_least"),
        _weak_minus_human,
        _gain,
    ),
    Statement(
        "E12",
        Claim("E12", "Teachers of other architectures teach at least as well as humans.",
              "at_least"),
        _weak_minus_main_human,
        _gain,
    ),
    Statement(
        "E14",
        Claim("E14", "SFT on the labels before DPO makes better students.", "greater"),
        _with_minus_without_sft,
        None,
    ),
    Statement(
        "E15",
        Claim("E15", "Weak labels are at least as good whatever the beta of DPO.", "at_least"),
        _weak_minus_human,
        _gain,
    ),
    Statement(
        "E16",
        Claim("E16", "Over seeds of the split, weak labels are at least as good.", "at_least"),
        _weak_minus_main_human,
        _gain,
    ),
    Statement(
        "E17",
        Claim("E17 all", "A teacher's errors are better to learn from than random ones.",
              "greater"),
        lambda found: found.minus("weak", "random"),
        None,
    ),
    Statement(
        "E17",
        Claim("E17 mismatched", "Its errors alone are better to learn from than random ones alone.",
              "greater"),
        lambda found: found.minus("mismatched", "random_mismatched"),
        None,
    ),
    Statement(
        "E18",
        Claim("E18", "A teacher with a reward head teaches about as well as one of DPO.", "close"),
        _reward_head_minus_dpo,
        _gain,
    ),
    Statement(
        "E1",
        Claim("R2", "Weak labels are at least as good as human labels of all pairs, those of the "
              "teacher included.", "at_least"),
        lambda found: _shared(found, "weak", "human_all"),
        _gain,
    ),
)  # fmt: skip


def claim_rows(parts: Sequence[Experiment], outcomes: Outcomes) -> list[ClaimRow]:
    """Every claim whose experiment is in the study. One without its evidence yet is not decided."""
    found = {part.id: Found(tuple(cells_of(part, outcomes, KINDS))) for part in parts}
    stated = [statement for statement in STATEMENTS if statement.experiment in found]
    evidence: list[Evidence | None] = []
    for statement in stated:
        cells = found[statement.experiment]
        difference = statement.difference(cells)
        margin = statement.margin(cells) if statement.margin else None
        lacking = difference is None or (statement.margin is not None and margin is None)
        evidence.append(
            None if lacking or difference is None else Evidence(statement.claim, difference, margin)
        )
    decisions = iter(decide([one for one in evidence if one is not None]))
    return [
        _row(statement, None if one is None else next(decisions))
        for statement, one in zip(stated, evidence, strict=True)
    ]


def _row(statement: Statement, decision: Decision | None) -> ClaimRow:
    claim = statement.claim
    if decision is None:
        return ClaimRow(
            statement.experiment, claim.sentence, "not decided", "not measured", None, None, ""
        )
    margin = decision.margin
    measured = {
        "at_least": f"difference above −{margin or 0:.2g}",
        "close": f"difference within ±{margin or 0:.2g}",
        "greater": "difference above 0",
    }[claim.kind]
    return ClaimRow(
        statement.experiment,
        claim.sentence,
        decision.verdict,
        measured,
        decision.estimate,
        decision.p,
        _needed(decision),
    )


def _needed(decision: Decision) -> str:
    """Why a claim is not decided, and how much more would decide it."""
    if decision.verdict != "not decided":
        return ""
    more = []
    if decision.seeds_needed:
        more.append(f"{decision.seeds_needed:,} seeds")
    if decision.prompts_needed:
        more.append(f"{decision.prompts_needed:,} test prompts")
    wanted = f"about {' or '.join(more)} would decide it" if more else ""
    return "; ".join(text for text in (decision.reason, wanted) if text)
