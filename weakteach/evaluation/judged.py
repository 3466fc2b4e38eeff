"""The cross-fitted labels of a teacher beside the human choices of the same pairs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from weakteach.statistics.calibration import label_probability
from weakteach.statistics.cross_fit import clustered_share, design_effect, inflation
from weakteach.statistics.estimate import CONFIDENCE, Estimate


@dataclass(frozen=True, eq=False)
class Judged:
    """Cross-fitted labels of n pairs that humans labeled, in ``repeats`` rounds of ``folds`` folds.

    Of shape [n]: ``pair_id``, ``source``, ``group`` (pairs of one group share a fold), ``human``
    (choice 1 or 2) and ``longer`` (the longer response, 0 for neither). Of shape [repeats, n]:
    ``margin``, the reward of response 1 minus that of response 2, and ``fold``, in which a pair was
    held out.
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
        """The teacher's choice, 1 or 2 [repeats, n]; a tie goes to the second response."""
        return np.where(self.margin > 0, 1, 2)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the teacher chose as the human did, 0 or 1 [repeats, n]."""
        return (self.choice == self.human).astype(float)

    @cached_property
    def rank(self) -> np.ndarray:
        """For each label [repeats, n] the share of its round's labels with smaller |margin|; of
        equal ones, the smaller pair id has the higher rank, as in ``derived.top_margin``.
        Thresholds are put on this rank, since margins of different teachers may be on different
        scales."""
        size, pairs = np.abs(self.margin), len(self.pair_id)
        of_id = np.broadcast_to(np.unique(self.pair_id, return_inverse=True)[1], size.shape)
        order = np.lexsort((-of_id, size), axis=1)
        rank = np.empty(size.shape)
        np.put_along_axis(rank, order, (np.arange(pairs)[None] + 0.5) / pairs, axis=1)
        return rank

    @property
    def inflation(self) -> float:
        return inflation(self.folds, self.repeats)

    @property
    def independent_pairs(self) -> float:
        """How many independent pairs the accuracy is as certain as."""
        effect = design_effect(self.right.mean(axis=0), self.group)
        return len(self.human) / (self.inflation * effect)

    def share(
        self, values: np.ndarray, where: np.ndarray | None = None, level: float = CONFIDENCE
    ) -> Estimate:
        """Mean of ``values`` [repeats, n] in [0, 1] over the cells where ``where`` [repeats, n] is
        true. Each cell counts as 1/``repeats`` of a pair; pairs of one group may count as fewer."""
        return clustered_share(values, self.group, self.inflation, level, where)


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
