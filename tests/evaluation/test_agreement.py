"""Weak labels against human choices and gold, joined by the pairs' ids."""

import pyarrow as pa
import pytest

from weakteach.evaluation.agreement import compare_labels, join_labels
from weakteach.preferences.pair import DataError

PAIRS = pa.table(
    {
        "pair_id": list("dcba"),
        "prompt": ["how", "why", "how", "who"],
        "response_1": ["long, long", "same", "x", "short"],
        "response_2": ["short", "four", "longer", "longer one"],
    }
)


def labels(**margins):
    """Labels whose choice is 1 where the margin is above 0."""
    values = list(margins.values())
    return pa.table(
        {
            "pair_id": list(margins),
            "choice": [1 if margin > 0 else 2 for margin in values],
            "margin": [float(margin) for margin in values],
            "confidence": [0.5 for _ in values],
            "reward_1": [margin / 2 for margin in values],
            "reward_2": [-margin / 2 for margin in values],
        }
    )


def test_labels_are_compared_by_pair_and_counted():
    weak, human = labels(a=3, b=1, c=-1, d=-2), labels(d=-1, c=1, b=-1, a=1)
    joined = join_labels(PAIRS, weak, human, labels(a=1, b=1, c=1, d=4))
    assert joined["pair_id"].to_pylist() == list("abcd")
    assert joined["margin"].to_pylist() == [3, 1, -1, -2]
    assert joined["gold_difference"].to_pylist() == [1, 1, 1, 4]
    assert joined["longer"].to_pylist() == [2, 2, 0, 1]
    a, b, c, d = joined["prompt_id"].to_pylist()
    assert b == d
    assert len({a, b, c}) == 3
    counts = compare_labels(4, joined)
    assert (counts.labeled, counts.compared, counts.agreed) == (4, 4, 2)
    assert counts.gold_with_weak == 1  # of b and c, on which they differ
    assert counts.weak_right == 2
    assert (counts.different_lengths, counts.weak_longer, counts.human_longer) == (3, 0, 1)


def test_pairs_without_a_human_choice_are_not_compared():
    joined = join_labels(PAIRS, labels(a=1, b=1), labels(b=-1))
    counts = compare_labels(2, joined)
    assert (counts.labeled, counts.compared, counts.agreed) == (2, 1, 0)
    assert counts.gold_with_weak is None
    with pytest.raises(DataError, match="No pair has both"):
        join_labels(PAIRS, labels(a=1), labels(b=1))


def test_gold_labels_of_other_pairs_are_refused():
    with pytest.raises(DataError, match="other pairs"):
        join_labels(PAIRS, labels(a=1), labels(a=1), labels(b=1))
