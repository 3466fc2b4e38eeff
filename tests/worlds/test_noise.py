"""Noisy choices between two rewards."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_pairs import judged_pairs

from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import POSTS, WORLD
from weakteach.worlds.noise import BradleyTerry, Noise, UniformFlip


@pytest.mark.parametrize(
    ("domain", "noise", "accuracy"),
    [
        (WORLD, BradleyTerry(2.0), 0.66),
        (WORLD, BradleyTerry(), 0.73),
        (WORLD, BradleyTerry(0.74), 0.815),
        (WORLD, UniformFlip(), 0.72),
        (WORLD, UniformFlip(0.0), 1.0),
        (POSTS, POSTS.noise, 0.72),
    ],
)
def test_measured_accuracy_of_noisy_choices(domain: Domain, noise: Noise, accuracy: float) -> None:
    rng = random.Random(0)
    right = [
        (noise.choice(gold_1.reward, gold_2.reward, rng.random()) == 1)
        == (gold_1.reward > gold_2.reward)
        for _, gold_1, gold_2 in judged_pairs(domain)
        if gold_1.reward != gold_2.reward
    ]
    assert statistics.mean(right) == pytest.approx(accuracy, abs=0.02)


golds = st.floats(-10, 4)


@given(golds, golds, st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("noise", [BradleyTerry(), UniformFlip()])
def test_choices_name_a_text_and_not_a_place(
    noise: Noise, gold_1: float, gold_2: float, uniform: float
) -> None:
    one = noise.choice(gold_1, gold_2, uniform)
    if noise.choice(gold_1, gold_2, uniform + 1e-9) == noise.choice(
        gold_1, gold_2, uniform - 1e-9
    ):  # else the uniform is at the very border
        assert noise.choice(gold_2, gold_1, 1 - uniform) == 3 - one


def test_extreme_margins_do_not_overflow() -> None:
    assert BradleyTerry(1e-300).choice(3.0, -3.0, 0.999999) == 1
    assert BradleyTerry(1e-300).choice(-3.0, 3.0, 0.0) == 2


def test_settings_of_noise_are_checked() -> None:
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            BradleyTerry(temperature)
    for rate in (-0.1, 0.6, float("nan")):
        with pytest.raises(ValueError, match="rate"):
            UniformFlip(rate)
