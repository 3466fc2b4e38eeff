"""Shares over cross-fitted pairs: known intervals, and coverage in simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from weakteach.statistics.cross_fit import (
    clustered_mean,
    clustered_share,
    design_effect,
    inflation,
    kappa,
    kappa_and_error,
)


def test_independent_pairs_have_wilsons_interval() -> None:
    values = np.array([1.0] * 30 + [0.0] * 10)
    found = clustered_share(values, np.arange(40))
    assert (found.low, found.high) == pytest.approx(
        proportion_confint(30, 40, method="wilson"), abs=0.003
    )
    wide = clustered_share(values, np.arange(40), inflation(5, 3))
    assert wide.low < found.low < 0.75 == wide.value < found.high < wide.high


def test_pairs_of_one_prompt_count_as_fewer_if_they_go_together() -> None:
    values, groups = np.repeat([1.0, 0.0, 1.0, 1.0], 10), np.repeat(np.arange(4), 10)
    assert design_effect(values, groups) == 10
    assert design_effect(values, np.arange(40)) == pytest.approx(1)
    assert clustered_share(values, groups).low < 0.35
    assert design_effect(np.tile([1.0, 0.0], 20), groups) == 1


def test_few_prompts_are_as_uncertain_as_students_quantile_says() -> None:
    """Of 4 prompts with 6 pairs, 5, 4, 4 and 3 are right: their sums are 1, 0, 0 and -1 off 4."""
    values = np.concatenate([np.arange(6) < right for right in (5, 4, 4, 3)]).astype(float)
    groups = np.repeat(np.arange(4), 6)
    assert design_effect(values, groups) == 1  # 2/(24·⅔·⅓): less than as many independent pairs
    values = np.concatenate([np.arange(6) < right for right in (6, 4, 4, 2)]).astype(float)
    # 8/(24·⅔·⅓) = 1.5; from 4 prompts 4/3 of that, and for an interval (3.182/1.960)² times as
    # much. Had every prompt pairs that are all right or all wrong, it would be 6.
    assert design_effect(values, groups) == pytest.approx(1.5 * 4 / 3)
    quantiles = stats.t.ppf(0.975, 3) / stats.norm.ppf(0.975)
    found = clustered_share(values, groups)
    trials = 24 / (1.5 * 4 / 3 * quantiles**2)
    assert (found.low, found.high) == pytest.approx(
        proportion_confint(trials * 2 / 3, trials, method="wilson"), abs=1e-9
    )
    mean = clustered_mean(values, groups)
    assert mean.high - mean.value == pytest.approx(stats.t.ppf(0.975, 3) * np.sqrt(8 * 4 / 3) / 24)


@pytest.mark.parametrize("estimate", ["share", "mean", "kappa"])
def test_intervals_hold_what_is_true_of_eight_prompts(estimate: str) -> None:
    """Prompts of 15 pairs, each with an ease of its own between 0 and 1."""
    random, groups = np.random.default_rng(4), np.repeat(np.arange(8), 15)
    held, trials = 0, 600
    for _ in range(trials):
        right = random.random(120) < random.random(8)[groups]
        if estimate == "kappa":  # of choices that are alike by chance
            human = random.integers(1, 3, 120)
            found, truth = kappa(human, np.where(right, human, 3 - human), groups), 0.0
        else:
            of = clustered_share if estimate == "share" else clustered_mean
            found, truth = of(right, groups), 0.5
        held += found.low <= truth <= found.high
    assert 0.925 <= held / trials <= 0.975


def test_inflation_of_known_plans() -> None:
    assert inflation(5, 1) == pytest.approx(2.25)  # Nadeau & Bengio: (1/5 + 1/4)·5
    assert inflation(5, 3) == pytest.approx((1 / 15 + 1 / 4) * 5)
    with pytest.raises(ValueError, match="No cross-fitting in 1 folds"):
        inflation(1, 1)


@pytest.mark.parametrize("signal", [0.0, 1.5])
def test_the_interval_holds_the_accuracy_of_the_teacher_of_all_pairs(signal: float) -> None:
    n, size, folds, repeats, trials = 60, 10, 5, 3, 400
    random = np.random.default_rng(11)
    weights = np.zeros(size)
    weights[0] = signal

    def people(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.normal(size=(count, size))
        return x, np.sign(x @ weights + random.logistic(size=count))

    def teacher(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.linalg.solve(x.T @ x + np.eye(size), x.T @ y)

    far_x, far_y = people(20_000)
    held = {"honest": 0, "naive": 0}
    for _ in range(trials):
        x, y = people(n)
        truth = float((np.sign(far_x @ teacher(x, y)) == far_y).mean())
        right = np.zeros((repeats, n))
        for repeat in range(repeats):
            fold = random.permutation(n) % folds
            for number in range(folds):
                out = fold == number
                right[repeat, out] = np.sign(x[out] @ teacher(x[~out], y[~out])) == y[out]
        for name, by in (("honest", inflation(folds, repeats)), ("naive", 1.0)):
            found = clustered_share(right.mean(axis=0), np.arange(n), by)
            held[name] += found.low <= truth <= found.high
    assert 0.93 <= held["honest"] / trials <= 0.995
    assert held["naive"] < held["honest"]


def test_a_mean_of_pairs_has_students_interval() -> None:
    random = np.random.default_rng(5)
    held = 0
    for _ in range(500):
        effect = np.repeat(random.normal(0.3, 1, 40), 3)
        found = clustered_mean(effect + random.normal(0, 1, 120), np.repeat(np.arange(40), 3))
        held += found.low <= 0.3 <= found.high
    assert 0.92 <= held / 500 <= 0.98


def test_kappa_of_a_known_table() -> None:
    first = np.repeat([1, 1, 2, 2], [20, 5, 10, 15])
    second = np.repeat([1, 2, 1, 2], [20, 5, 10, 15])
    found = kappa(first, second)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    theirs = cohens_kappa(np.array([[20, 5], [10, 15]]))
    assert (found.low, found.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))
    assert kappa(first, first).value == 1
    assert np.isnan(kappa([1, 1], [1, 1]).value)
    with pytest.raises(ValueError, match="1 or 2"):
        kappa([1, 0], [1, 2])


def test_kappa_of_pairs_that_say_the_same_and_of_rounds_that_share_training_pairs() -> None:
    first = np.repeat([1, 1, 2, 2], [20, 5, 10, 15])
    second = np.repeat([1, 2, 1, 2], [20, 5, 10, 15])
    value, error = kappa_and_error(first, second)
    # Five times as many pairs, five with each prompt: as many prompts, and no more is known.
    often = [np.repeat(one, 5) for one in (first, second)]
    assert kappa_and_error(*often, np.repeat(np.arange(50), 5)) == pytest.approx((value, error))
    assert kappa_and_error(*often)[1] == pytest.approx(error / np.sqrt(5))
    assert kappa_and_error(first, second, widened=2.25)[1] == pytest.approx(1.5 * error)
    # A round more is as many pairs, of which all cells count.
    swapped = np.stack([first, second]), np.stack([second, first])
    mean, wide = kappa_and_error(*swapped)
    assert kappa(*swapped).prompts == 50
    p, a = 35 / 50, 0.55
    assert mean == pytest.approx((p - a**2 - (1 - a) ** 2) / (1 - a**2 - (1 - a) ** 2))
    assert wide == pytest.approx(error, rel=0.05)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40),
    st.floats(1, 4),
)
def test_a_share_lies_in_its_interval_within_0_and_1(
    cells: list[tuple[float, int]], widened: float
) -> None:
    values, groups = (np.array(column) for column in zip(*cells, strict=True))
    found = clustered_share(values, groups, widened)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
