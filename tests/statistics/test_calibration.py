"""Calibration of teachers whose probabilities are known to be right or wrong."""

import numpy as np
import pytest

from weakteach.statistics.calibration import calibration


def test_calibration_of_a_teacher_that_knows_and_of_one_that_boasts() -> None:
    random = np.random.default_rng(7)
    probability = random.uniform(0.5, 1, size=20_000)
    knows = calibration(probability, random.random(20_000) < probability)
    assert [one.count for one in knows.bins] == [2000] * 10
    assert knows.ece < 2 * knows.ece_by_chance < 0.03
    held = [one.accuracy.low <= one.probability <= one.accuracy.high for one in knows.bins]
    assert sum(held) >= 8
    boasts = calibration(probability, random.random(20_000) < 0.5)
    assert boasts.ece == pytest.approx(0.25, abs=0.02)


def test_chance_alone_shows_an_ece() -> None:
    random, made = np.random.default_rng(8), []
    for _ in range(200):
        probability = random.uniform(0.5, 0.9, size=300)
        made.append(calibration(probability, random.random(300) < probability, bins=5))
    expected = np.mean([one.ece_by_chance for one in made])
    assert np.mean([one.ece for one in made]) == pytest.approx(expected, rel=0.1)


def test_equal_probabilities_share_a_bin() -> None:
    found = calibration(np.array([0.6] * 8 + [0.9] * 2), np.array([1, 0] * 5), bins=10)
    assert [(one.low, one.high, one.count) for one in found.bins] == [(0.6, 0.6, 8), (0.9, 0.9, 2)]
    assert found.ece == pytest.approx(0.8 * 0.1 + 0.2 * 0.4)
    assert len(calibration(np.full(5, 0.7), np.ones(5)).bins) == 1


@pytest.mark.parametrize(
    ("probability", "correct"),
    [([], []), ([0.5, 0.6], [1]), ([1.2], [1]), ([np.nan], [1]), ([0.5], [0.5])],
)
def test_what_cannot_be_calibrated_is_refused(probability: list, correct: list) -> None:
    with pytest.raises(ValueError, match="alibration"):
        calibration(np.array(probability), np.array(correct))
