"""Learning curves of teachers whose accuracy is known for every number of labels."""

import numpy as np
import pytest
from scipy import stats

from weakteach.statistics.learning_curve import LearningCurve, learning_curve

SIZES = (75, 150, 225, 300)


def curve(top: float, gain: float, wanted: float, groups: int, seed: int = 0) -> LearningCurve:
    random = np.random.default_rng(seed)
    p = top - gain / np.sqrt(SIZES)
    return learning_curve(SIZES, random.random((4, groups)) < p[:, None], wanted)


def test_an_exact_curve_gives_its_own_numbers() -> None:
    p = 0.8 - 2 / np.sqrt(SIZES)
    found = learning_curve(SIZES, np.stack([p, p], axis=1), 0.7)
    assert found.top == pytest.approx(0.8)
    assert found.gain.value == pytest.approx(2)
    assert found.reach.labels == pytest.approx(400)
    assert found.reach.told
    assert [one.value for one in found.accuracy] == pytest.approx(p)
    assert [one.low for one in found.accuracy] == pytest.approx(p)


def test_with_many_pairs_the_number_is_told_with_an_interval_that_holds_it() -> None:
    held = 0
    for seed in range(40):
        reach = curve(0.8, 2.0, 0.7, 4000, seed).reach
        assert reach.told
        assert reach.low is not None
        held += reach.low <= 400 <= (reach.high or np.inf)
    assert held >= 35


def test_points_have_the_interval_of_their_groups() -> None:
    outcomes = np.repeat([[1.0, 0.0], [1.0, 1.0]], 100, axis=1).reshape(2, 200)
    half, whole = learning_curve((50, 100), outcomes, 0.7).accuracy
    error = np.sqrt(0.25 / 199)
    assert (half.low, half.high) == pytest.approx(
        (0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=5e-3
    )
    assert (whole.low, whole.high) == pytest.approx((1, 1))


def test_few_groups_have_students_interval() -> None:
    outcomes = np.array([[0.2, 0.4, 0.6, 0.8]] * 2)
    point = learning_curve((50, 100), outcomes, 0.9).accuracy[0]
    half = stats.t.ppf(0.975, 3) * np.sqrt(0.2 / 3 / 4)
    assert (point.low, point.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.05)


def test_what_cannot_be_told_is_not() -> None:
    flat = curve(0.6, 0.0, 0.7, 300).reach
    assert not flat.told
    assert flat.high is None
    few = curve(0.8, 2.0, 0.75, 40).reach
    assert few.high is None
    assert not learning_curve(SIZES, np.full((4, 10), 0.6), 0.7).reach.told


def test_what_is_reached_already_needs_no_more() -> None:
    found = curve(0.8, 1.0, 0.6, 4000).reach
    assert found.labels is not None
    assert found.labels < 75
    worse = learning_curve(SIZES, np.array([[0.9, 0.9], [0.85, 0.85], [0.8, 0.8], [0.8, 0.8]]), 0.7)
    assert worse.gain.value < 0
    assert not worse.reach.told


@pytest.mark.parametrize(
    ("sizes", "wanted"), [((100, 100), 0.7), ((100, 200), 1.0), ((0, 200), 0.7), ((100,), 0.7)]
)
def test_what_is_no_curve_is_refused(sizes: tuple[int, ...], wanted: float) -> None:
    with pytest.raises(ValueError, match="No learning curve"):
        learning_curve(sizes, np.full((2, 5), 0.5), wanted)
