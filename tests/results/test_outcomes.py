"""Outcomes of pairs, by prompt."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakteach.results.outcomes import by_prompt
from weakteach.statistics.joined import Missing, crossed


def of_pairs(prompts, values):
    return by_prompt(pa.table({"prompt_id": prompts}), np.array(values, float))


def test_outcomes_of_pairs_of_different_prompts_are_theirs():
    found = of_pairs(["b", "a", "c"], [1, 0, 1])
    assert found.ids.tolist() == ["a", "b", "c"]
    assert found.values == pytest.approx([0, 1, 1])


def test_pairs_of_one_prompt_count_together():
    """The mean over pairs is 4/6, and 6 pairs of 3 prompts are half as many prompts: a prompt with
    3 of 3 right is 1 above the mean, halved, and so on."""
    found = of_pairs(["a", "b", "b", "c", "c", "c"], [1, 0, 0, 1, 1, 1])
    assert found.values == pytest.approx([2 / 3 + 1 / 6, 2 / 3 - 2 / 3, 2 / 3 + 1 / 2])
    assert found.values.mean() == pytest.approx(4 / 6)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1))
def test_the_mean_over_prompts_is_that_over_pairs(pairs):
    prompts, right = zip(*pairs, strict=True)
    found = of_pairs([str(one) for one in prompts], right)
    assert found.values.mean() == pytest.approx(np.mean(right))


def test_intervals_of_several_pairs_a_prompt_hold_as_often_as_they_say():
    """Six answers a prompt, ranked by a human with one mind: pairs of a prompt are alike."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        ease = rng.beta(1, 1, 80)
        right = rng.random((80, 5)) < ease[:, None]
        prompts = np.repeat([f"p{n:02}" for n in range(80)], 5).tolist()
        joined = crossed({0: of_pairs(prompts, right.ravel())})
        assert not isinstance(joined, Missing)
        share = joined.share()
        held += share.low <= 0.5 <= share.high
    assert 0.92 < held / 300 < 0.98
