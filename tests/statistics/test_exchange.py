"""Exchange rates of labels whose worth is known."""

import math

import numpy as np
import pytest

from weakteach.statistics.exchange import exchange_rate


def outcomes(level: float, seed: int, noise: float = 0.0, shape: tuple[int, int] = (4, 200)):
    return level + noise * np.random.default_rng(seed).normal(size=shape)


def humans(noise: float = 0.0, slope: float = 1.0):
    return {n: outcomes(slope * math.log(n), n, noise) for n in (100, 200, 400)}


def test_an_exact_worth() -> None:
    # 500 weak labels lift 100 human ones to where 250 human ones are: a thousand are worth 300.
    found = exchange_rate(humans(), outcomes(math.log(250), 1), 100, 500)
    assert (found.worth, found.low, found.high) == pytest.approx((300, 300, 300))
    assert found.told


def test_labels_that_do_harm_are_worth_less_than_nothing() -> None:
    found = exchange_rate(humans(), outcomes(math.log(80), 1), 100, 1000)
    assert found.worth == pytest.approx(-20)


def test_the_interval_holds_the_worth() -> None:
    held = told = 0
    for trial in range(150):
        human = {n: outcomes(math.log(n), 1000 * trial + n, 2.0) for n in (100, 200, 400)}
        found = exchange_rate(human, outcomes(math.log(250), 1000 * trial, 2.0), 100, 1000)
        told += found.told
        held += found.told and found.low <= 150 <= found.high
    assert told > 120
    assert held / told >= 0.93


def test_a_line_that_does_not_rise_tells_nothing() -> None:
    flat = exchange_rate(humans(slope=0.0), outcomes(0.0, 1), 100, 1000)
    assert (flat.worth, flat.low, flat.high, flat.told) == (None, None, None, False)
    noisy = exchange_rate(humans(30.0), outcomes(math.log(250), 1, 30.0), 100, 1000)
    assert not noisy.told


def test_a_worth_beyond_what_was_tried_is_not_told() -> None:
    found = exchange_rate(humans(), outcomes(math.log(40_000), 1), 100, 1000)
    assert (found.worth, found.told) == (None, False)


def test_other_shapes_and_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        exchange_rate(humans(), np.zeros((4, 3)), 100, 1000)
    with pytest.raises(ValueError, match="two numbers"):
        exchange_rate({100: outcomes(0, 1)}, outcomes(0, 1), 100, 1000)
