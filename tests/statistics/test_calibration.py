"""Calibration of teachers whose probabilities are known to be right or wrong."""

import numpy as np
import pytest

from weakteach.statistics.calibration import (
    COLDEST,
    HOTTEST,
    calibration,
    cross_fitted_probability,
    error_parts,
    fit_temperature,
    label_probability,
)
from weakteach.statistics.crossed import mean


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


def test_the_parts_of_a_calibration_error_have_it_as_their_mean() -> None:
    random = np.random.default_rng(9)
    probability = random.uniform(0.5, 1, size=300)
    right = random.random(300) < 0.7
    parts = error_parts(probability, right)
    assert parts.mean() == pytest.approx(calibration(probability, right).ece)
    # Two bins: one right less often than claimed, the other more often.
    few = error_parts(np.array([0.6, 0.6, 0.9, 0.9]), np.array([1, 0, 1, 1]), bins=2)
    assert few == pytest.approx([-0.4, 0.6, 0.1, 0.1])


def test_the_error_of_a_calibration_error_is_that_of_the_mean_of_its_parts() -> None:
    """Where every bin is off by much more than chance."""
    random, means, errors = np.random.default_rng(10), [], []
    for _ in range(400):
        probability = random.uniform(0.7, 1, size=200)
        parts = error_parts(probability, random.random(200) < probability - 0.3)
        means.append(parts.mean())
        errors.append(parts.std(ddof=1) / np.sqrt(200))
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.1)


@pytest.mark.parametrize(("temperature", "told"), [(1.0, (0.0, 0.1)), (4.0, (0.9, 1.0))])
def test_a_gain_of_scaling_is_told_where_there_is_one(temperature: float, told: tuple) -> None:
    """Of four seeds, whose temperatures are fitted on labels of their own, over new labels."""

    def gained(seed: int) -> np.ndarray:
        fitted = fit_temperature(*drawn(600, temperature, 2 * seed))
        margin, right = drawn(400, temperature, 2 * seed + 1)
        claimed, scaled = (label_probability(margin, one) for one in (1.0, fitted))
        return error_parts(claimed, right) - error_parts(scaled, right)

    found = [mean(np.array([gained(4 * n + s) for s in range(4)])) for n in range(60)]
    assert told[0] <= np.mean([one.low > 0 or one.high < 0 for one in found]) <= told[1]


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


def drawn(n: int, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Margins, and whether their labels are right, of a teacher with a known temperature."""
    random = np.random.default_rng(seed)
    margin = random.normal(0, 2, n)
    return margin, random.random(n) < label_probability(margin, temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_of_known_margins_is_found(temperature: float) -> None:
    margin, right = drawn(40_000, temperature, seed=1)
    assert fit_temperature(margin, right) == pytest.approx(temperature, rel=0.06)
    found = fit_temperature(margin[:500], right[:500])
    # It is the best one: the likelihood falls on either side.
    fit = [likelihood(margin[:500], right[:500], found * by) for by in (0.9, 1.0, 1.1)]
    assert fit[1] == max(fit)


def likelihood(margin: np.ndarray, right: np.ndarray, temperature: float) -> float:
    p = label_probability(margin, temperature)
    return float(np.log(np.where(right, p, 1 - p)).sum())


def test_temperatures_at_the_ends() -> None:
    margin = np.array([0.5, -1.0, 2.0, -3.0])
    assert fit_temperature(margin, np.ones(4)) == COLDEST
    assert fit_temperature(margin, np.zeros(4)) == HOTTEST
    assert fit_temperature(np.zeros(4), np.array([1, 0, 1, 0])) == HOTTEST
    assert label_probability(np.array([0.0, 5.0]), HOTTEST) == pytest.approx([0.5, 0.5], abs=2e-3)
    with pytest.raises(ValueError, match="No temperature"):
        fit_temperature(np.array([np.nan]), np.ones(1))


def test_a_boasting_teacher_is_set_right_by_a_temperature_that_saw_other_labels() -> None:
    margin, right = drawn(6000, 4.0, seed=2)
    part = np.arange(6000) % 5
    before = calibration(label_probability(margin, 1.0), right)
    after = calibration(cross_fitted_probability(margin, right, part), right)
    assert before.ece > 0.15
    assert after.ece < 2 * after.ece_by_chance
    assert after.brier < before.brier


def test_labels_that_belong_together_count_as_fewer() -> None:
    probability, right = np.repeat([0.6, 0.7, 0.8], 40), np.repeat([1.0, 0.0, 1.0, 1.0], 30)
    alone = calibration(probability, right)
    tied = calibration(probability, right, groups=np.repeat(np.arange(12), 10))
    assert alone.ece == tied.ece
    assert alone.ece_by_chance < tied.ece_by_chance
    assert alone.bins[0].accuracy.low > tied.bins[0].accuracy.low


def test_no_label_is_judged_by_a_temperature_that_saw_it() -> None:
    margin, right = drawn(60, 1.0, seed=3)
    part = np.arange(60) % 3
    fitted = cross_fitted_probability(margin, right, part)
    other = right.copy()
    other[part == 1] = ~other[part == 1]  # outcomes of one part change no probability there
    changed = cross_fitted_probability(margin, other, part)
    assert np.array_equal(fitted[part == 1], changed[part == 1])
    assert not np.array_equal(fitted[part != 1], changed[part != 1])
    with pytest.raises(ValueError, match="two parts"):
        cross_fitted_probability(margin, right, np.zeros(60))


def test_brier_of_known_probabilities() -> None:
    found = calibration(np.array([0.5, 0.8, 1.0]), np.array([1, 0, 1]))
    assert found.brier == pytest.approx((0.25 + 0.64 + 0) / 3)
