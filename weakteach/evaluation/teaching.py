"""What a teacher's labels are worth to somebody who has labeled pairs: the facts of a verdict.

All facts are measured on pairs that humans labeled and that the teacher did not see in training, by
cross-fitting. ``statistics/cross_fit.py`` explains this and their intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from weakteach.evaluation.judged import Judged
from weakteach.preferences.duplicates import NEAR_DUPLICATE, SAME_PAIR, SAME_PROMPT, UNSEEN
from weakteach.statistics.calibration import (
    Calibration,
    calibration,
    cross_fitted_probability,
    error_parts,
    fit_temperature,
    label_probability,
)
from weakteach.statistics.cross_fit import (
    clustered_mean,
    clustered_share,
    group_outcomes,
    kappa,
)
from weakteach.statistics.estimate import CONFIDENCE, Estimate
from weakteach.statistics.learning_curve import LearningCurve, learning_curve

DECILES = 10
SHARES = tuple(tenths / 10 for tenths in range(1, 11))
EDGES = 21


@dataclass(frozen=True)
class Slice:
    """Accuracy on some of the pairs: one decile of margins, one source or one domain."""

    name: str
    accuracy: Estimate


@dataclass(frozen=True)
class Confident:
    """Accuracy of the ``share`` of labels with the largest margins. ``sure`` is the low end of an
    interval that holds for all shares at once (Bonferroni)."""

    share: float
    accuracy: Estimate
    sure: float


@dataclass(frozen=True)
class Route:
    """The result if humans label the ``human_share`` of pairs with the smallest margins, and the
    teacher the rest. ``accuracy`` is that of all labels, where a human's label counts as right;
    ``at_random`` is the accuracy if humans label as many pairs drawn at random."""

    human_share: float
    accuracy: Estimate
    at_random: float


@dataclass(frozen=True)
class Rival:
    """Another teacher, judged on the same pairs and folds. ``agreement`` is the share of pairs that
    both teachers label alike, ``kappa`` is Cohen's. ``behind`` is the judged teacher's accuracy
    minus the rival's, compared pair by pair. ``same_model`` says that the two differ only in the
    seed of their training."""

    name: str
    same_model: bool
    accuracy: Estimate
    agreement: Estimate
    kappa: Estimate
    behind: Estimate


@dataclass(frozen=True)
class LengthBias:
    """How often the longer response was chosen, of the pairs whose responses differ in length."""

    teacher: Estimate
    human: Estimate


@dataclass(frozen=True)
class Margins:
    """How many labels, right and wrong, have a |margin| between neighboring ``edges``. A pair has
    one label per repeat."""

    edges: tuple[float, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """How many of the pairs to be labeled the teacher saw in training, and in what way.
    ``agreement`` is that of its labels with human choices on the pairs that it did not see; None if
    there are no such choices."""

    pairs: int
    same_pair: int
    same_prompt: int
    near_duplicate: int
    agreement: Estimate | None


@dataclass(frozen=True)
class TeacherFacts:
    """All that a verdict on a teacher rests on, as ``verdict.json`` holds it.

    ``before`` is the calibration of the probabilities that the teacher claims, ``after`` that of
    its probabilities after cross-fitted temperature scaling; ``ece_gain`` and ``brier_gain`` are
    before minus after, above 0 where scaling helped. Chance raises both errors of ``ece_gain``, the
    smaller one more. ``temperature`` is fitted on all pairs: it is the one for labels to come.
    ``deciles`` go from the smallest margins to the largest. ``curve`` is None if all teachers had
    the same number of labels. The accuracy is as certain as that of ``independent_pairs``, fewer
    than there are.
    """

    teacher: str
    pairs: int
    groups: int
    folds: int
    repeats: int
    training_pairs: int
    accuracy: Estimate
    independent_pairs: float
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
    """The facts of ``judged``, whose teachers each learned from ``training_pairs`` labeled pairs.

    ``smaller`` holds the same pairs judged by teachers of fewer labeled pairs, by their number.
    ``rivals`` are (name, same_model, labels) of other teachers on the same pairs and folds. The
    learning curve says how many labels an accuracy of ``wanted`` takes.
    """
    margin, right = judged.margin.ravel(), judged.right.ravel()
    claimed = label_probability(margin, 1.0)
    # The first round's folds serve all rounds, so all labels of a pair are in one part.
    fitted = cross_fitted_probability(margin, right, np.tile(judged.fold[0], judged.repeats))
    claimed, fitted = (one.reshape(judged.right.shape) for one in (claimed, fitted))
    brier = np.square(claimed - judged.right) - np.square(fitted - judged.right)
    errors = error_parts(claimed, judged.right) - error_parts(fitted, judged.right)
    points = {**smaller, training_pairs: judged}
    return TeacherFacts(
        teacher=teacher,
        pairs=len(judged.human),
        groups=len(np.unique(judged.group)),
        folds=judged.folds,
        repeats=judged.repeats,
        training_pairs=training_pairs,
        accuracy=judged.share(judged.right),
        independent_pairs=judged.independent_pairs,
        before=_calibration(judged, claimed),
        after=_calibration(judged, fitted),
        temperature=fit_temperature(margin, right),
        ece_gain=_mean(judged, errors),
        brier_gain=_mean(judged, brier),
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
    """Count the pairs by ``how`` [pairs] each was seen (``duplicates.recognizer``). The agreement
    is the share of unseen pairs whose label is the human's (``right`` [pairs]), among those where
    ``choice_known`` [pairs]. Pairs of one ``prompt`` [pairs], by its number, may count as fewer."""
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
    """A dataclass as JSON values, without fields that are not finite, which JSON cannot hold."""
    return _finite(asdict(value))


def facts_from_json(text: str | bytes) -> TeacherFacts:
    """Read ``verdict.json``. Raises pydantic's ValidationError for what ``to_json`` did not
    make."""
    return TypeAdapter(TeacherFacts).validate_json(text)


def seen_from_json(value: Any) -> Seen:
    """Read Seen from the facts of a step. Raises pydantic's ValidationError for what ``to_json``
    did not make."""
    return TypeAdapter(Seen).validate_python(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _finite(item) for name, item in value.items()}
        return {n: v for n, v in kept.items() if not (isinstance(v, float) and not isfinite(v))}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _calibration(judged: Judged, probability: np.ndarray) -> Calibration:
    return calibration(probability, judged.right, groups=judged.group, widened=judged.inflation)


def _mean(judged: Judged, values: np.ndarray) -> Estimate:
    """Mean of ``values`` [repeats, n]."""
    return clustered_mean(values.mean(axis=0), judged.group, judged.inflation)


def _margins(margin: np.ndarray, right: np.ndarray) -> Margins:
    size = np.abs(margin)
    edges = np.histogram_bin_edges(size, EDGES - 1)
    counts = [
        tuple(int(n) for n in np.histogram(size[where], edges)[0])
        for where in (right > 0, right == 0)
    ]
    return Margins(tuple(edges.tolist()), *counts)


def _deciles(judged: Judged) -> tuple[Slice, ...]:
    place = np.minimum((judged.rank * DECILES).astype(int), DECILES - 1)
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
        # Human choices are the same in every round, and no shared training widens the interval.
        human=clustered_share(human[0][known], judged.group[known]),
    )


def _confident(judged: Judged) -> tuple[Confident, ...]:
    rank, level = judged.rank, 1 - (1 - CONFIDENCE) / len(SHARES)
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
    rank, accuracy, found = judged.rank, float(judged.right.mean()), []
    for share in (0.0, *SHARES):
        values = np.where(rank < share, 1.0, judged.right)
        found.append(Route(share, judged.share(values), share + (1 - share) * accuracy))
    return tuple(found)


def _rival(judged: Judged, name: str, same_model: bool, other: Judged) -> Rival:
    alike = (judged.choice == other.choice).astype(float)
    return Rival(
        name=name,
        same_model=same_model,
        accuracy=other.share(other.right),
        agreement=judged.share(alike),
        kappa=kappa(judged.choice, other.choice, judged.group, judged.inflation),
        behind=_mean(judged, judged.right - other.right),
    )


def _curve(points: Mapping[int, Judged], wanted: float) -> LearningCurve:
    numbers = sorted(points)
    judged = [points[number] for number in numbers]
    rows = [group_outcomes(one.right.mean(axis=0), one.group)[1] for one in judged]
    return learning_curve(numbers, np.stack(rows), wanted, judged[-1].inflation)
