"""Estimates over seeds and prompts: by how often they hold the truth, and against closed forms."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from weakteach.statistics import crossed
from weakteach.statistics.estimate import Estimate

TRIES = 1000


def outcomes(
    seeds: int, prompts: int, seed_sd: float, prompt_sd: float, noise_sd: float = 1.0
) -> Iterator[np.ndarray]:
    """Matrices [seeds, prompts] with a mean of 0."""
    random = np.random.default_rng(seeds * prompts)
    for _ in range(TRIES):
        seed, prompt = random.normal(size=(seeds, 1)), random.normal(size=(1, prompts))
        noise = random.normal(size=(seeds, prompts))
        yield seed_sd * seed + prompt_sd * prompt + noise_sd * noise


@pytest.mark.parametrize(
    ("seeds", "prompts", "seed_sd", "prompt_sd"),
    [
        (3, 500, 0.0, 0.0),
        (3, 500, 0.0, 1.0),
        (3, 500, 0.1, 1.0),
        (3, 100, 0.3, 1.0),
        (3, 100, 0.1, 4.0),
        (2, 100, 0.0, 0.2),
        (2, 100, 0.1, 0.2),
        (2, 100, 1.0, 1.0),
        (5, 50, 0.2, 1.0),
        (10, 30, 0.1, 3.0),
        (1, 100, 0.0, 1.0),
    ],
)
def test_interval_of_a_mean_holds_the_truth(
    seeds: int, prompts: int, seed_sd: float, prompt_sd: float
) -> None:
    found = [crossed.mean(y) for y in outcomes(seeds, prompts, seed_sd, prompt_sd)]
    held = np.mean([one.low <= 0 <= one.high for one in found])
    print(f"\n{seeds} seeds, {prompts} prompts, sd {seed_sd} and {prompt_sd}: {held:.1%}")
    assert 0.92 < held < 0.98
    # The test of a mean of 0 is the same statement.
    assert [one.p < 0.05 for one in found] == [not one.low <= 0 <= one.high for one in found]


def test_two_seeds_and_many_unlike_prompts_are_covered_rather_too_well() -> None:
    found = [crossed.mean(y) for y in outcomes(2, 100, 0.1, 2.0)]
    held = np.mean([one.low <= 0 <= one.high for one in found])
    print(f"\n2 seeds, 100 prompts, sd 0.1 and 2.0: {held:.1%}")
    assert 0.95 < held < 0.995


def test_interval_holds_the_truth_for_skewed_rewards() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(TRIES):
        cells = random.exponential(size=(1, 200)) + random.exponential(size=(4, 200)) - 2
        one = crossed.mean(cells + 0.05 * random.normal(size=(4, 1)))
        held += one.low <= 0 <= one.high
    print(f"\n4 seeds, 200 prompts, skewed rewards: {held / TRIES:.1%}")
    assert 0.92 < held / TRIES < 0.98


def test_one_seed_is_covered_for_itself_alone() -> None:
    one = crossed.mean(np.array([[1.0, 2.0, 4.0, 5.0]]))
    low, high = stats.ttest_1samp([1.0, 2.0, 4.0, 5.0], 0).confidence_interval()
    assert (one.low, one.high) == pytest.approx((low, high))
    assert one.p == pytest.approx(stats.ttest_1samp([1.0, 2.0, 4.0, 5.0], 0).pvalue)
    assert (one.seeds, one.prompts, one.covers_seeds) == (1, 4, False)
    assert crossed.mean(np.array([[1.0, 2.0], [1.0, 3.0]])).covers_seeds


def test_seeds_that_alone_vary_get_their_t_test() -> None:
    seeds = np.array([0.2, 0.5, 0.9])
    found = crossed.mean(np.repeat(seeds[:, None], 50, axis=1))
    expected = stats.ttest_1samp(seeds, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_components_are_found_again() -> None:
    found = [crossed.components(y) for y in outcomes(4, 60, 0.5, 2.0, 1.5)]
    assert np.mean([one.seed_variance for one in found]) == pytest.approx(0.25, rel=0.1)
    assert np.mean([one.prompt_variance for one in found]) == pytest.approx(4, rel=0.03)
    assert np.mean([one.residual_variance for one in found]) == pytest.approx(2.25, rel=0.03)


@pytest.mark.parametrize("seeds", [3, 5])
def test_pairing_finds_no_difference_where_none_is(seeds: int) -> None:
    random, found = np.random.default_rng(3), 0
    for _ in range(TRIES):
        prompt = 3 * random.normal(size=(1, 200))
        a, b = (
            prompt + 0.1 * random.normal(size=(seeds, 1)) + random.normal(size=(seeds, 200))
            for _ in "ab"
        )
        found += crossed.mean(crossed.paired(a, b)).p < 0.05
    assert 0.03 < found / TRIES < 0.07


def test_pairing_takes_the_prompts_out() -> None:
    random = np.random.default_rng(4)
    prompt = 10 * random.normal(size=(1, 100))
    a, b = (prompt + 0.1 * random.normal(size=(4, 100)) + k for k in (0.5, 0.2))
    assert crossed.mean(crossed.paired(a, b)).low > 0 > crossed.mean(a).low
    with pytest.raises(ValueError, match=r"Not paired.*\(4, 100\) and \(4, 99\)"):
        crossed.paired(a, b[:, 1:])


@pytest.mark.parametrize(
    "cells", [np.zeros(5), np.zeros((3, 1)), np.zeros((0, 5)), np.zeros((2, 2, 2))]
)
def test_what_is_no_matrix_of_outcomes_is_refused(cells: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least 2 prompts"):
        crossed.mean(cells)


def test_a_missing_outcome_is_named() -> None:
    cells = np.zeros((3, 4))
    cells[1, 2] = np.nan
    with pytest.raises(ValueError, match="seed row 1 at prompt column 2 is nan"):
        crossed.mean(cells)


def share(matrix: np.ndarray) -> Estimate:
    return crossed.share_of(crossed.components(matrix))


@pytest.mark.parametrize(("chance", "spread"), [(0.5, 0.5), (0.9, 0.5), (0.6, 2.0)])
def test_interval_of_a_share_holds_the_truth(chance: float, spread: float) -> None:
    random, shift = np.random.default_rng(5), stats.norm.ppf(chance) * np.sqrt(1 + spread**2)
    held = 0
    for _ in range(TRIES):
        latent = shift + spread * random.normal(size=(1, 150)) + random.normal(size=(3, 150))
        one = share(latent > 0)
        held += one.low <= chance <= one.high
    assert 0.92 < held / TRIES < 0.985


def test_a_share_counts_like_prompts_once_and_independent_cells_each() -> None:
    same = np.repeat(np.arange(100)[None, :] < 62, 4, axis=0)
    one = share(same)
    assert (one.low, one.high) == pytest.approx(
        proportion_confint(62, 100, method="wilson"), abs=0.002
    )
    assert share(np.ones((4, 100))).low == pytest.approx(
        proportion_confint(100, 100, method="wilson")[0]
    )
    # Every seed has as many hits, every prompt too: as if each cell were a trial of its own.
    even = np.array([[0, 1] * 50, [1, 0] * 50])
    both = share(even)
    assert (both.low, both.high) == pytest.approx(proportion_confint(100, 200, method="wilson"))
    with pytest.raises(ValueError, match="cannot be"):
        share(2.0 * same)


def test_a_tie_is_half_a_win() -> None:
    won = crossed.win_rate(wins=40, ties=20, losses=40)
    assert won.value == 0.5
    assert (won.low, won.high) == pytest.approx(proportion_confint(50, 100, method="wilson"))
    half = crossed.win_rate(0, 1, 0)
    assert 0 < half.low < half.value < half.high < 1
    assert half.high == pytest.approx(1 - half.low)
    for wrong in [(0, 0, 0), (-1, 2, 3)]:
        with pytest.raises(ValueError, match="No comparisons"):
            crossed.win_rate(*wrong)


@pytest.mark.parametrize("truth", [0.3, 0.8])
def test_interval_of_r_squared_holds_the_truth(truth: float) -> None:
    random, held = np.random.default_rng(6), 0
    for _ in range(TRIES):
        x = random.normal(size=60)
        y = truth * x + np.sqrt(1 - truth**2) * random.normal(size=60)
        one = crossed.r_squared(x, y)
        held += one.low <= truth**2 <= one.high
    assert 0.92 < held / TRIES < 0.98


def test_r_squared_near_0_and_its_refusals() -> None:
    x = np.arange(8.0)
    y = np.array([1, -1, -1, 1, 1, -1, -1, 1.0])
    none = crossed.r_squared(x, y)
    assert none.value == pytest.approx(0, abs=1e-12)
    assert none.low == 0 < 0.3 < none.high
    assert none.p == pytest.approx(1)
    falling = crossed.r_squared(x, -x + 0.1 * y)
    assert 0.9 < falling.low < falling.value < falling.high <= 1
    for a, b in [(x, np.ones(8)), (x[:3], y[:3]), (x, y[:7]), (x, np.where(x == 2, np.nan, y))]:
        with pytest.raises(ValueError, match="No correlation"):
            crossed.r_squared(a, b)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04, times 4 3 2 1, never below the one before: .02 .03 .06 .06.
    assert crossed.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(crossed.holm([])) == []
    assert list(crossed.holm([0.9, 0.9])) == [1, 1]
    assert crossed.holm([0.01, 0.04], 4) == pytest.approx([0.04, 0.12])  # two are not there yet
    with pytest.raises(ValueError, match="3 p-values of a family of 2"):
        crossed.holm([0.1] * 3, 2)
    with pytest.raises(ValueError, match="No p-values"):
        crossed.holm([0.1, float("nan")])
