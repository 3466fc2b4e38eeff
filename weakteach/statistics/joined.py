"""Outcomes joined by seed and by prompt (or pair) id, never by position.

There are two ways to join the seeds of one measure:

- ``crossed``: every seed answers the same prompts. The prompts for which all seeds have an outcome
  are kept; if these are fewer than ``LEAST_SHARE`` of all prompts, the result is ``Missing``.
- ``overlapping``: every seed has drawn pairs of its own, some of which other seeds drew too. All
  are kept. With P different pairs in all, a seed s with n values x of mean m_s has at pair i the
  pseudo-value

      y_si = m_s + (x_si - m_s) √(P(P - 1) / (n(n - 1))),  or m_s if it lacks pair i.

  Then the estimates of ``crossed.py`` hold for y: its row means are the seeds' means m_s, and the
  mean covariance of two rows, divided by P, is the covariance of two seeds' means that is due to
  the pairs they share. So both terms of Var(mean) = Var(m)/S + (mean covariance of two seeds'
  means) are estimated without bias. If all seeds have the same pairs, y = x; seeds that share no
  pair count as independent.

Differences and means of several outcomes are formed by id: of crossed ones, over the ids that all
of them have, which must be at least ``LEAST_SHARE`` of all ids; of overlapping ones, over the ids
that any of them has. If one outcome is missing, the result is missing for the same reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from weakteach.statistics.crossed import components, mean, share_of
from weakteach.statistics.estimate import CONFIDENCE, Estimate

LEAST_SHARE = 0.8
"""The least share of the prompts of all its members that a join must keep."""


@dataclass(frozen=True)
class Column:
    """The outcomes of one seed: ``values`` [n] of ``ids`` [n], which are sorted and unique.
    ``lacking`` are ids without an outcome, such as contests that a judge left undecided."""

    ids: np.ndarray
    values: np.ndarray
    lacking: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))

    def __post_init__(self) -> None:
        if self.ids.shape != self.values.shape or not (self.ids[1:] > self.ids[:-1]).all():
            raise ValueError("A column holds one value for each of its sorted, unique ids")

    @property
    def asked(self) -> np.ndarray:
        """All ids, sorted."""
        return np.union1d(self.ids, self.lacking) if len(self.lacking) else self.ids


@dataclass(frozen=True)
class Missing:
    """Why there is no outcome, in words."""

    reason: str


@dataclass(frozen=True, eq=False)
class Crossing:
    """Joined outcomes: ``matrix`` [seeds, ids], with ``seeds`` in rising order and ``ids`` sorted.

    ``asked`` are the sorted ids of all joined members, with or without an outcome; those that are
    not among ``ids`` were left out. ``own_pairs`` says that the seeds were joined as
    ``overlapping``: then the matrix holds pseudo-values, and only ids for which no seed has an
    outcome are left out.
    """

    seeds: tuple[int, ...]
    ids: np.ndarray
    matrix: np.ndarray
    asked: np.ndarray
    own_pairs: bool = False

    @property
    def seed_means(self) -> tuple[float, ...]:
        return tuple(self.matrix.mean(axis=1).tolist())

    @property
    def left_out(self) -> int:
        return len(self.asked) - len(self.ids)

    def mean(self, confidence: float = CONFIDENCE) -> Estimate:
        """The mean over seeds and ids with its interval; see ``crossed.mean``."""
        return replace(mean(self.matrix, confidence), left_out=self.left_out)

    def share(self) -> Estimate:
        """The mean of values between 0 and 1, whose interval stays within 0 and 1."""
        return replace(share_of(components(self.matrix)), left_out=self.left_out)

    def times(self, factor: float) -> "Crossing":
        return replace(self, matrix=factor * self.matrix)

    def plus(self, number: float) -> "Crossing":
        return replace(self, matrix=self.matrix + number)


Joined = Crossing | Missing


def crossed(columns: Mapping[int, Column]) -> Joined:
    """Join columns by seed, at the ids for which all seeds have an outcome."""
    if not columns:
        return Missing("not measured yet")
    seeds = tuple(sorted(columns))
    found = [columns[seed] for seed in seeds]
    ids, asked = _shared([one.ids for one in found]), _any([one.asked for one in found])
    who = "the seed has an outcome of" if len(seeds) == 1 else f"the {len(seeds)} seeds share"
    if problem := _too_few(len(ids), len(asked), who):
        return problem
    matrix = np.stack([one.values[np.searchsorted(one.ids, ids)] for one in found])
    return Crossing(seeds, ids, matrix, asked)


def overlapping(columns: Mapping[int, Column]) -> Joined:
    """Join columns by seed, of pairs that each seed has drawn for itself: see the module's text."""
    if not columns:
        return Missing("not measured yet")
    seeds = tuple(sorted(columns))
    fewest = min(len(column.ids) for column in columns.values())
    if fewest < 2:
        return Missing("a seed has fewer than 2 pairs")
    for column in columns.values():
        if problem := _too_few(len(column.ids), len(column.asked), "a seed has an outcome of"):
            return problem
    ids = _any([columns[seed].ids for seed in seeds])
    matrix = np.empty((len(seeds), len(ids)))
    for row, seed in enumerate(seeds):
        column = columns[seed]
        center, n = column.values.mean(), len(column.ids)
        matrix[row] = center
        at = np.searchsorted(ids, column.ids)
        matrix[row, at] += (column.values - center) * np.sqrt(_square(len(ids)) / _square(n))
    asked = _any([column.asked for column in columns.values()])
    return Crossing(seeds, ids, matrix, asked, own_pairs=True)


def minus(one: Joined, other: Joined) -> Joined:
    """one - other, paired by seed and id as ``aligned`` does."""
    return _combined([one, other], (1.0, -1.0))


def average(outcomes: Sequence[Joined]) -> Joined:
    """The mean of the outcomes, paired by seed and id as ``aligned`` does."""
    return (
        _combined(outcomes, [1 / len(outcomes)] * len(outcomes))
        if outcomes
        else Missing("the study has no arm of it")
    )


def aligned(outcomes: Sequence[Joined]) -> list[Crossing] | Missing:
    """The outcomes at the seeds that all of them have, and at the ids that all of them have or, if
    they are ``overlapping``, any has. Raises ValueError if only some are."""
    found: list[Crossing] = []
    for one in outcomes:
        if isinstance(one, Missing):
            return one
        found.append(one)
    seeds = tuple(s for s in found[0].seeds if all(s in one.seeds for one in found))
    if not seeds:
        return Missing("no seed in common")
    if len({one.own_pairs for one in found}) > 1:
        raise ValueError("Outcomes of the same pairs and of each seed's own do not go together")
    asked = _any([one.asked for one in found])
    if found[0].own_pairs:
        ids = _any([one.ids for one in found])
        spread = [_spread_over(_of_seeds(one, seeds), ids) for one in found]
        return [replace(one, asked=asked) for one in spread]
    ids = _shared([one.ids for one in found])
    if problem := _too_few(len(ids), len(asked), "what is compared share"):
        return problem
    return [
        replace(
            cut := _of_seeds(one, seeds),
            ids=ids,
            matrix=cut.matrix[:, np.searchsorted(one.ids, ids)],
            asked=asked,
        )
        for one in found
    ]


def _combined(outcomes: Sequence[Joined], weights: Sequence[float]) -> Joined:
    found = aligned(outcomes)
    if isinstance(found, Missing):
        return found
    matrix = sum(w * one.matrix for w, one in zip(weights, found, strict=True))
    return replace(found[0], matrix=np.asarray(matrix))


def _of_seeds(outcome: Crossing, seeds: tuple[int, ...]) -> Crossing:
    rows = [outcome.seeds.index(seed) for seed in seeds]
    return replace(outcome, seeds=seeds, matrix=outcome.matrix[rows])


def _spread_over(outcome: Crossing, ids: np.ndarray) -> Crossing:
    """The pseudo-values over more ids; every seed counts as lacking those that were added."""
    means = outcome.matrix.mean(axis=1, keepdims=True)
    matrix = np.repeat(means, len(ids), axis=1)
    scale = np.sqrt(_square(len(ids)) / _square(len(outcome.ids)))
    matrix[:, np.searchsorted(ids, outcome.ids)] += (outcome.matrix - means) * scale
    return replace(outcome, ids=ids, matrix=matrix)


def _square(n: int) -> float:
    return float(n) * (n - 1)


def _shared(ids: Sequence[np.ndarray]) -> np.ndarray:
    """The ids that are in all arrays."""
    shared = ids[0]
    for more in ids[1:]:
        shared = np.intersect1d(shared, more, assume_unique=True)
    return shared


def _any(ids: Sequence[np.ndarray]) -> np.ndarray:
    """The ids that are in any array, sorted."""
    return np.unique(np.concatenate(ids))


def _too_few(shared: int, asked: int, who: str) -> Missing | None:
    if shared >= max(2, LEAST_SHARE * asked):
        return None
    return Missing(f"{who} {shared:,} of {asked:,} prompts or pairs, too few to compare")
