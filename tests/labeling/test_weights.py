"""Weights and probabilities of labels, by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakteach.labeling.annotators import label_table
from weakteach.labeling.weights import pair_weights, with_probability
from weakteach.preferences.pair import DataError

MARGINS = np.array([0.0, 0.5, -1.0, 3.0, -6.0])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("C1", 2 * (sigmoid(np.abs(MARGINS)) - 0.5)),
        ("C2", sigmoid(np.abs(MARGINS))),
        ("C3", [0, 0.5, 1, 1, 1]),
        ("C4", [0, 0.1, 0.2, 0.6, 1]),
    ],
)
def test_the_four_weights(weighting, expected):
    assert pair_weights(weighting, MARGINS) == pytest.approx(np.array(expected))


def test_the_first_weight_is_the_confidence_of_a_label():
    labels = label_table(list("abcde"), np.stack([MARGINS, np.zeros(5)], axis=1))
    assert pair_weights("C1", MARGINS) == pytest.approx(labels["confidence"].to_numpy())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.sampled_from(["C1", "C2", "C3", "C4"]))
def test_weights_lie_in_0_to_1_and_grow_with_the_margin(margins, weighting):
    weights = pair_weights(weighting, np.array(margins))
    assert ((weights >= 0) & (weights <= 1)).all()
    order = np.argsort(np.abs(margins), kind="stable")
    assert (np.diff(weights[order]) >= 0).all()


def test_a_margin_that_is_not_finite_has_no_weight():
    with pytest.raises(ValueError, match="1 margins are not finite"):
        pair_weights("C1", np.array([1.0, np.nan]))


def test_probabilities_of_labels():
    labels = label_table(list("abcde"), np.stack([MARGINS, np.zeros(5)], axis=1))
    table = with_probability(labels, 2.0)
    assert table.column_names == [*labels.column_names, "probability"]
    assert table["probability"].to_numpy() == pytest.approx(sigmoid(np.abs(MARGINS) / 2))
    # Without a temperature it is what the teacher claims.
    claimed = with_probability(labels, 1.0)["probability"].to_numpy()
    assert claimed == pytest.approx((1 + labels["confidence"].to_numpy()) / 2)
    with pytest.raises(DataError, match="choices alone"):
        with_probability(pa.table({"pair_id": ["a"], "choice": [1]}), 1.0)
