"""How weak labels agree with human choices, and whom gold sides with where they differ."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from weakteach.preferences.pair import DataError


@dataclass(frozen=True)
class LabelComparison:
    """Counts of pairs. The gold counts are None where no gold label is known.

    ``compared`` pairs have a weak label and a human choice; on ``agreed`` of them both are the
    same, on ``gold_with_weak`` of the others gold sides with the weak label. ``weak_right`` and
    ``human_right`` count the compared pairs on which each sides with gold.
    """

    labeled: int
    compared: int
    agreed: int
    gold_with_weak: int | None
    weak_right: int | None
    human_right: int | None


def compare_labels(
    weak: pa.Table, human: pa.Table, gold: pa.Table | None = None
) -> LabelComparison:
    """Compare tables with ``pair_id`` and ``choice``, joined by id.

    Raises DataError when no pair has both a weak label and a human choice.
    """
    choices = weak.select(["pair_id", "choice"]).rename_columns(["pair_id", "weak"])
    human = human.select(["pair_id", "choice"]).rename_columns(["pair_id", "human"])
    joined = choices.join(human, "pair_id", join_type="inner")
    if not len(joined):
        raise DataError("No pair has both a weak label and a human choice")
    if gold is not None:
        gold = gold.select(["pair_id", "choice"]).rename_columns(["pair_id", "gold"])
        joined = joined.join(gold, "pair_id", join_type="inner")
        if not len(joined):
            raise DataError("The gold labels are of other pairs than the weak ones")
    weak_choice, human_choice = joined["weak"].to_numpy(), joined["human"].to_numpy()
    agreed = weak_choice == human_choice
    gold_choice = None if gold is None else joined["gold"].to_numpy()
    return LabelComparison(
        labeled=len(weak),
        compared=len(joined),
        agreed=int(agreed.sum()),
        gold_with_weak=_count(gold_choice, weak_choice, ~agreed),
        weak_right=_count(gold_choice, weak_choice),
        human_right=_count(gold_choice, human_choice),
    )


def _count(
    gold: np.ndarray | None, choice: np.ndarray, where: np.ndarray | None = None
) -> int | None:
    if gold is None:
        return None
    sides = gold == choice
    return int((sides if where is None else sides & where).sum())
