"""Intervals: against closed forms, and by how often they hold the truth."""

import numpy as np
import pytest

from weakteach.evaluation.statistics import (
    mean_interval,
    share_estimate,
    share_se,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (6, 10), (10, 10), (255, 400)])
def test_wilson_is_the_closed_form(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    expected = (max(0, center - half), min(1, center + half))
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_share_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="No share"):
        wilson_interval(successes, n)


def test_seeds_do_not_multiply_the_pairs() -> None:
    estimate = share_estimate([0.6, 0.64], [100, 100])
    assert estimate.value == pytest.approx(0.62)
    assert (estimate.low, estimate.high) == wilson_interval(62, 100)


def test_share_of_nothing_has_no_interval() -> None:
    assert np.isnan(share_estimate([0.5], [0]).low)
    assert np.isnan(share_se(0.5, 0))


def test_one_and_two_seeds_get_the_interval_over_prompts() -> None:
    one = mean_interval([1.0], [0.1])
    assert (one.low, one.high) == pytest.approx((1 - 0.195996, 1 + 0.195996), abs=1e-5)
    two = mean_interval([1.0, 3.0], [0.1, 0.3])
    assert (two.value, two.high - two.value) == pytest.approx((2.0, 0.2 * 1.959964), abs=1e-5)


def test_without_error_over_prompts_it_is_student_t_over_seeds() -> None:
    estimate = mean_interval([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert estimate.high - estimate.value == pytest.approx(4.302653 / np.sqrt(3), abs=1e-5)


def test_equal_seeds_leave_the_error_over_prompts() -> None:
    estimate = mean_interval([1.0] * 4, [0.1] * 4)
    assert estimate.high - estimate.value == pytest.approx(0.195996, abs=1e-4)
    assert mean_interval([1.0] * 3, [0.0] * 3).low == 1.0


def test_missing_standard_error_gives_no_interval() -> None:
    estimate = mean_interval([1.0, 2.0], [0.1, float("nan")])
    assert estimate.value == 1.5
    assert np.isnan(estimate.low)


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="2 values with 1"):
        mean_interval([1.0, 2.0], [0.1])


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("seed_sd", "prompt_sd", "noise_sd"), [(0.2, 0, 1), (0, 2, 1), (0.2, 2, 1)]
)
def test_interval_holds_the_truth_in_a_new_draw_of_seeds_and_prompts(
    seeds: int, seed_sd: float, prompt_sd: float, noise_sd: float
) -> None:
    random, prompts, tries, held = np.random.default_rng(0), 100, 400, 0
    for _ in range(tries):
        rewards = seed_sd * random.normal(size=(seeds, 1))
        rewards = rewards + prompt_sd * random.normal(size=(1, prompts))
        rewards = rewards + noise_sd * random.normal(size=(seeds, prompts))
        ses = rewards.std(axis=1, ddof=1) / np.sqrt(prompts)
        estimate = mean_interval(list(rewards.mean(axis=1)), list(ses))
        held += estimate.low <= 0 <= estimate.high
    assert held / tries > 0.93
