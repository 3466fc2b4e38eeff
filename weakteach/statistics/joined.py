"""Outcomes joined by seed and by prompt (or pair) id, never by position.

There are two ways to join the seeds of one measure:

- ``crossed``: every seed answers the same prompts. Kept are the prompts that all seeds have; if
  they are fewer than ``LEAST_SHARE`` of what the smallest seed has, the result is ``Missing``.
- ``overlapping``: every seed has drawn pairs of its own, some of which other seeds drew too. All
  are kept. Seed s with n values x has at pair i, of P different pairs in all, the pseudo-value

      y_si = m_s + (x_si - m_s) √(P(P - 1) / (n(n - 1))),  and m_s, its mean, where it lacks i.

  Then the estimates of ``crossed.py`` hold for y: its row means are the seeds' means m_s, and the
  mean covariance of two rows, over P, is that of two seeds' means, through the pairs that they
  share. In Var(mean) = Var(m)/S + (mean covariance of two seeds' means) both terms are so estimated
  without bias. Seeds of the same pairs give y = x; seeds that share none count as independent.

Differences, means and multiples are formed by id. Whatever is made of something missing is missing
for the same reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

LEAST_SHARE = 0.8
"""The least share of the prompts of its smallest member that a join must keep."""


@dataclass(frozen=True)
class Column:
    """The outcomes of one seed: ``values`` [n] of ``ids`` [n], which are sorted and unique."""

    ids: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.ids.shape != self.values.shape or not (self.ids[1:] > self.ids[:-1]).all():
            raise ValueError("A column holds one value for each of its sorted, unique ids")


@dataclass(frozen=True)
class Missing:
    """Why there is no outcome, in words."""

    reason: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """Outcomes ``matrix`` [seeds, ids] of ``seeds``, in rising order, at ``ids``, sorted.

    ``known`` counts the ids that the smallest of the joined members had, so that
    ``known - len(ids)`` were left out. ``own_pairs`` says that the seeds were joined as
    ``overlapping``; then the matrix holds pseudo-values and nothing is left out.
    """

    seeds: tuple[int, ...]
    ids: np.ndarray
    matrix: np.ndarray
    known: int
    own_pairs: bool = False

    @property
    def seed_means(self) -> tuple[float, ...]:
        return tuple(self.matrix.mean(axis=1).tolist())

    @property
    def left_out(self) -> int:
        return self.known - len(self.ids)

    def times(self, factor: float) -> "Outcome":
        return replace(self, matrix=factor * self.matrix)

    def plus(self, number: float) -> "Outcome":
        return replace(self, matrix=self.matrix + number)


Joined = Outcome | Missing


def crossed(columns: Mapping[int, Column]) -> Joined:
    """Columns by seed, at the ids that all seeds have."""
    if not columns:
        return Missing("not measured yet")
    seeds = tuple(sorted(columns))
    rows = [
        Outcome((s,), columns[s].ids, columns[s].values[None, :], len(columns[s].ids))
        for s in seeds
    ]
    known = min(row.known for row in rows)
    ids = _shared(rows)
    if problem := _too_few(len(ids), known, f"the {len(seeds)} seeds"):
        return problem
    matrix = np.concatenate([row.matrix[:, np.searchsorted(row.ids, ids)] for row in rows])
    return Outcome(seeds, ids, matrix, known)


def overlapping(columns: Mapping[int, Column]) -> Joined:
    """Columns by seed, of pairs that each seed has drawn for itself: see this module."""
    if not columns:
        return Missing("not measured yet")
    seeds = tuple(sorted(columns))
    fewest = min(len(column.ids) for column in columns.values())
    if fewest < 2:
        return Missing("a seed has fewer than 2 pairs")
    ids = np.unique(np.concatenate([columns[seed].ids for seed in seeds]))
    matrix = np.empty((len(seeds), len(ids)))
    for row, seed in enumerate(seeds):
        column = columns[seed]
        mean, n = column.values.mean(), len(column.ids)
        matrix[row] = mean
        at = np.searchsorted(ids, column.ids)
        matrix[row, at] += (column.values - mean) * np.sqrt(_square(len(ids)) / _square(n))
    return Outcome(seeds, ids, matrix, len(ids), own_pairs=True)


def minus(one: Joined, other: Joined) -> Joined:
    """one - other, paired by the seeds and ids that both have."""
    return _combined([one, other], (1.0, -1.0))


def average(outcomes: Sequence[Joined]) -> Joined:
    """Their mean, paired by the seeds and ids that all have."""
    return (
        _combined(outcomes, [1 / len(outcomes)] * len(outcomes))
        if outcomes
        else Missing("the study has no arm of it")
    )


def aligned(outcomes: Sequence[Joined]) -> list[Outcome] | Missing:
    """The outcomes at the seeds and ids that all of them have."""
    found: list[Outcome] = []
    for one in outcomes:
        if isinstance(one, Missing):
            return one
        found.append(one)
    seeds = tuple(s for s in found[0].seeds if all(s in one.seeds for one in found))
    if not seeds:
        return Missing("no seed in common")
    if len({one.own_pairs for one in found}) > 1:
        raise ValueError("Outcomes of the same pairs and of each seed's own do not go together")
    if found[0].own_pairs:
        ids = np.unique(np.concatenate([one.ids for one in found]))
        spread = [_spread_over(_of_seeds(one, seeds), ids) for one in found]
        return [replace(one, known=len(ids)) for one in spread]
    known, ids = min(one.known for one in found), _shared(found)
    if problem := _too_few(len(ids), known, "what is compared"):
        return problem
    return [
        replace(
            cut := _of_seeds(one, seeds),
            ids=ids,
            matrix=cut.matrix[:, np.searchsorted(one.ids, ids)],
            known=known,
        )
        for one in found
    ]


def _combined(outcomes: Sequence[Joined], weights: Sequence[float]) -> Joined:
    found = aligned(outcomes)
    if isinstance(found, Missing):
        return found
    matrix = sum(w * one.matrix for w, one in zip(weights, found, strict=True))
    return replace(found[0], matrix=np.asarray(matrix))


def _of_seeds(outcome: Outcome, seeds: tuple[int, ...]) -> Outcome:
    rows = [outcome.seeds.index(seed) for seed in seeds]
    return replace(outcome, seeds=seeds, matrix=outcome.matrix[rows])


def _spread_over(outcome: Outcome, ids: np.ndarray) -> Outcome:
    """Pseudo-values over more ids, which a seed lacks just as those that it lacked before."""
    means = outcome.matrix.mean(axis=1, keepdims=True)
    matrix = np.repeat(means, len(ids), axis=1)
    scale = np.sqrt(_square(len(ids)) / _square(len(outcome.ids)))
    matrix[:, np.searchsorted(ids, outcome.ids)] += (outcome.matrix - means) * scale
    return replace(outcome, ids=ids, matrix=matrix)


def _square(n: int) -> float:
    return float(n) * (n - 1)


def _shared(outcomes: Sequence[Outcome]) -> np.ndarray:
    ids = outcomes[0].ids
    for one in outcomes[1:]:
        ids = np.intersect1d(ids, one.ids, assume_unique=True)
    return ids


def _too_few(shared: int, known: int, who: str) -> Missing | None:
    if shared >= max(2, LEAST_SHARE * known):
        return None
    return Missing(f"{who} share {shared:,} of {known:,} prompts or pairs, too few to compare")
