"""What a teacher's labels are worth to somebody who has labeled pairs: the facts of a verdict.

All of them are of pairs that humans labeled and that the teacher did not see in training, by
cross-fitting: see ``statistics/cross_fit.py``, whose intervals they have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter
from scipy import stats

from weakteach.preferences.duplicates import NEAR_DUPLICATE, SAME_PAIR, SAME_PROMPT, UNSEEN
from weakteach.statistics.calibration import (
    Calibration,
    calibration,
    cross_fitted_probability,
    error_gain,
    fit_temperature,
    label_probability,
)
from weakteach.statistics.cross_fit import (
    clustered_mean,
    clustered_share,
    design_effect,
    inflation,
    kappa,
    share_interval,
)
from weakteach.statistics.estimate import CONFIDENCE, Estimate
from weakteach.statistics.learning_curve import LearningCurve, learning_curve

DECILES = 10
SHARES = tuple(tenths / 10 for tenths in range(1, 11))
EDGES = 21


@dataclass(frozen=True, eq=False)
class Judged:
    """Cross-fitted labels of n pairs that humans labeled, in ``repeats`` rounds of ``folds`` folds.

    ``pair_id``, ``source``, ``group`` (what was kept together), ``human`` (choice 1 or 2) and
    ``longer`` (the longer response, 0 for neither) are [n]. ``margin`` and ``fold`` are [repeats,
    n]: reward of response 1 minus that of response 2, and the fold in which a pair was held out.
    """

    pair_id: np.ndarray
    source: np.ndarray
    group: np.ndarray
    human: np.ndarray
    longer: np.ndarray
    margin: np.ndarray
    fold: np.ndarray
    folds: int

    @property
    def repeats(self) -> int:
        return len(self.margin)

    @cached_property
    def choice(self) -> np.ndarray:
        """The teacher's [repeats, n]; a tie goes to the second response."""
        return np.where(self.margin > 0, 1, 2)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the teacher chose as the human did, 0 or 1 [repeats, n]."""
        return (self.choice == self.human).astype(float)

    @property
    def inflation(self) -> float:
        return inflation(self.folds, self.repeats)

    def share(
        self, values: np.ndarray, where: np.ndarray | None = None, level: float = CONFIDENCE
    ) -> Estimate:
        """Mean of ``values`` [repeats, n] in [0, 1] over the cells where ``where`` [repeats, n]
        holds. Cells count as pairs, a ``repeats``-th each; pairs of a group may count as fewer."""
        inside = np.ones(values.shape, bool) if where is None else where
        cells = inside.sum(axis=0)
        known = cells > 0
        of_pair = (values * inside).sum(axis=0)[known] / cells[known]
        effect = design_effect(of_pair, self.group[known])
        p, pairs = float(values[inside].mean()), cells.sum() / self.repeats
        low, high = share_interval(p, pairs / (self.inflation * effect), level)
        return Estimate(p, low, high, prompts=round(pairs))


@dataclass(frozen=True)
class Slice:
    """Accuracy on some of the pairs: those between two margins, of a source, of a domain."""

    name: str
    accuracy: Estimate


@dataclass(frozen=True)
class Confident:
    """The ``share`` of labels with the largest margins. ``sure`` is the low end of an interval
    that holds for all the shares together (Bonferroni)."""

    share: float
    accuracy: Estimate
    sure: float


@dataclass(frozen=True)
class Route:
    """Humans label the ``human_share`` with the smallest margins, the teacher the rest: accuracy
    of all, where a human's label counts as right; ``at_random`` is what as many human labels on
    pairs drawn by lot would give."""

    human_share: float
    accuracy: Estimate
    at_random: float


@dataclass(frozen=True)
class Rival:
    """Another teacher on the same pairs and folds. ``agreement`` is the share of pairs that both
    label alike, ``kappa`` Cohen's; ``behind`` is how much more accurate than it the judged teacher
    is, pair by pair. ``same_model`` says that only the seed of its training differs."""

    name: str
    same_model: bool
    accuracy: Estimate
    agreement: Estimate
    kappa: Estimate
    behind: Estimate


@dataclass(frozen=True)
class LengthBias:
    """Shares of pairs whose longer response was chosen, of those that differ in length."""

    teacher: Estimate
    human: Estimate


@dataclass(frozen=True)
class Margins:
    """Counts of labels (one of each pair and repeat) between neighboring ``edges`` of |margin|."""

    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """Pairs to be labeled that the teacher saw in training, and the agreement with the human
    choices of those that it did not see; None where there are no such choices."""

    pairs: int
    same_pair: int
    same_prompt: int
    near_duplicate: int
    agreement: Estimate | None


@dataclass(frozen=True)
class TeacherFacts:
    """All that a verdict on a teacher rests on; ``verdict.json`` holds it.

    Calibration is that of what the teacher claims and of what is left after temperature scaling,
    cross-fitted; ``ece_gain`` and ``brier_gain`` are before minus after, above 0 where it helped.
    ``temperature`` is fitted on all pairs: the one for labels to come. ``deciles`` go from the
    smallest margins to the largest. ``curve`` is None where all teachers had the same number of
    labels.
    """

    teacher: str
    pairs: int
    groups: int
    folds: int
    repeats: int
    training_pairs: int
    accuracy: Estimate
    before: Calibration
    after: Calibration
    temperature: float
    ece_gain: Estimate
    brier_gain: Estimate
    margins: Margins
    deciles: tuple[Slice, ...]
    sources: tuple[Slice, ...]
    length: LengthBias | None
    confident: tuple[Confident, ...]
    routing: tuple[Route, ...]
    rivals: tuple[Rival, ...]
    transfer: tuple[Slice, ...]
    curve: LearningCurve | None


def teacher_facts(
    teacher: str,
    judged: Judged,
    training_pairs: int,
    wanted: float,
    smaller: Mapping[int, Judged],
    rivals: Sequence[tuple[str, bool, Judged]],
    transfer: Sequence[Slice],
) -> TeacherFacts:
    """The facts of ``judged``, whose teachers had ``training_pairs`` labeled pairs each.

    ``smaller`` holds the same pairs judged by teachers of fewer labeled pairs, by their number;
    ``rivals`` name, same_model and labels of other teachers on the same pairs and folds. ``wanted``
    is the accuracy that the learning curve is asked for.
    """
    margin, right = judged.margin.ravel(), judged.right.ravel()
    groups = np.tile(judged.group, judged.repeats)
    claimed = label_probability(margin, 1.0)
    # The parts of the first round serve all: what is of one pair is in one part.
    fitted = cross_fitted_probability(margin, right, np.tile(judged.fold[0], judged.repeats))
    brier = np.square(claimed - right) - np.square(fitted - right)
    points = {**smaller, training_pairs: judged}
    return TeacherFacts(
        teacher=teacher,
        pairs=len(judged.human),
        groups=len(np.unique(judged.group)),
        folds=judged.folds,
        repeats=judged.repeats,
        training_pairs=training_pairs,
        accuracy=judged.share(judged.right),
        before=calibration(claimed, right, groups=groups),
        after=calibration(fitted, right, groups=groups),
        temperature=fit_temperature(margin, right),
        ece_gain=error_gain(claimed, fitted, right, groups),
        brier_gain=clustered_mean(brier, groups, judged.folds / (judged.folds - 1)),
        margins=_margins(margin, right),
        deciles=_deciles(judged),
        sources=_sources(judged),
        length=_length_bias(judged),
        confident=_confident(judged),
        routing=_routing(judged),
        rivals=tuple(_rival(judged, *rival) for rival in rivals),
        transfer=tuple(transfer),
        curve=_curve(points, wanted) if len(points) > 1 else None,
    )


def seen_facts(
    how: np.ndarray, right: np.ndarray, choice_known: np.ndarray, prompt: np.ndarray
) -> Seen:
    """``how`` [pairs] each was seen (``duplicates.recognizer``); ``right`` [pairs] whether its
    label is the human's, which counts where ``choice_known`` [pairs] and the pair was not seen.
    Pairs of one ``prompt`` [pairs], by its number, may count as fewer."""
    counted = choice_known & (how == UNSEEN)
    agreement = None
    if counted.any():
        agreement = clustered_share(right[counted].astype(float), prompt[counted])
    return Seen(
        pairs=len(how),
        same_pair=int((how == SAME_PAIR).sum()),
        same_prompt=int((how == SAME_PROMPT).sum()),
        near_duplicate=int((how == NEAR_DUPLICATE).sum()),
        agreement=agreement,
    )


def to_json(value: Any) -> Any:
    """A dataclass as JSON values; what is not finite is left out, as JSON has no such number."""
    return _finite(asdict(value))


def facts_from_json(text: str | bytes) -> TeacherFacts:
    """Raises pydantic's ValidationError for what ``to_json`` did not write."""
    return TypeAdapter(TeacherFacts).validate_json(text)


def seen_from_json(value: Any) -> Seen:
    """Of the facts of a step. Raises pydantic's ValidationError for what ``to_json`` did not
    make."""
    return TypeAdapter(Seen).validate_python(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _finite(item) for name, item in value.items()}
        return {n: v for n, v in kept.items() if not (isinstance(v, float) and not isfinite(v))}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _margins(margin: np.ndarray, right: np.ndarray) -> Margins:
    size = np.abs(margin)
    edges = np.histogram_bin_edges(size, EDGES - 1)
    counts = [
        tuple(int(n) for n in np.histogram(size[where], edges)[0])
        for where in (right > 0, right == 0)
    ]
    return Margins(tuple(edges.tolist()), *counts)


def _rank(judged: Judged) -> np.ndarray:
    """For each label [repeats, n] the share of its round's labels with smaller margins. Teachers
    of other folds may be on another scale; a rank within the round is what a threshold means."""
    return (stats.rankdata(np.abs(judged.margin), axis=1) - 0.5) / judged.margin.shape[1]


def _deciles(judged: Judged) -> tuple[Slice, ...]:
    place = np.minimum((_rank(judged) * DECILES).astype(int), DECILES - 1)
    found = [(n, place == n) for n in range(DECILES) if (place == n).any()]
    return tuple(Slice(f"{n + 1}", judged.share(judged.right, where)) for n, where in found)


def _sources(judged: Judged) -> tuple[Slice, ...]:
    found = []
    for name in np.unique(judged.source):
        where = np.broadcast_to(judged.source == name, judged.right.shape)
        found.append(Slice(str(name), judged.share(judged.right, where)))
    return tuple(found)


def _length_bias(judged: Judged) -> LengthBias | None:
    differ = np.broadcast_to(judged.longer != 0, judged.right.shape)
    if not differ.any():
        return None
    human = np.broadcast_to(judged.human == judged.longer, judged.right.shape).astype(float)
    known = differ[0]
    return LengthBias(
        teacher=judged.share((judged.choice == judged.longer).astype(float), differ),
        # Humans are the same in every round, and no training is shared.
        human=clustered_share(human[0][known], judged.group[known]),
    )


def _confident(judged: Judged) -> tuple[Confident, ...]:
    rank, level = _rank(judged), 1 - (1 - CONFIDENCE) / len(SHARES)
    found = [(share, rank >= 1 - share) for share in SHARES]
    return tuple(
        Confident(
            share,
            judged.share(judged.right, where),
            judged.share(judged.right, where, level).low,
        )
        for share, where in found
        if where.any()
    )


def _routing(judged: Judged) -> tuple[Route, ...]:
    rank, accuracy, found = _rank(judged), float(judged.right.mean()), []
    for share in (0.0, *SHARES):
        values = np.where(rank < share, 1.0, judged.right)
        found.append(Route(share, judged.share(values), share + (1 - share) * accuracy))
    return tuple(found)


def _rival(judged: Judged, name: str, same_model: bool, other: Judged) -> Rival:
    alike = (judged.choice == other.choice).astype(float)
    ahead = (judged.right - other.right).mean(axis=0)
    return Rival(
        name=name,
        same_model=same_model,
        accuracy=other.share(other.right),
        agreement=judged.share(alike),
        kappa=kappa(judged.choice, other.choice, judged.group, judged.inflation),
        behind=clustered_mean(ahead, judged.group, judged.inflation),
    )


def _curve(points: Mapping[int, Judged], wanted: float) -> LearningCurve:
    numbers = sorted(points)
    rows = []
    for number in numbers:
        outcome = points[number].right.mean(axis=0)
        _, group = np.unique(points[number].group, return_inverse=True)
        rows.append(np.bincount(group, outcome) / np.bincount(group))
    return learning_curve(numbers, np.stack(rows), wanted, points[numbers[-1]].inflation)


def pairs_table(judged: Judged, temperature: float) -> pa.Table:
    """One row per pair: ``pair_id, source, human``, the mean ``margin`` over repeats, the mean
    ``probability`` of response 1 at that temperature, and the share of repeats that were
    ``right``."""
    sure = label_probability(judged.margin, temperature)
    first = np.where(judged.margin > 0, sure, 1 - sure)
    return pa.table(
        {
            "pair_id": pa.array(judged.pair_id.tolist(), pa.string()),
            "source": pa.array(judged.source.tolist(), pa.string()),
            "human": pa.array(judged.human, pa.int8()),
            "margin": judged.margin.mean(axis=0),
            "probability": first.mean(axis=0),
            "right": judged.right.mean(axis=0),
        }
    )
