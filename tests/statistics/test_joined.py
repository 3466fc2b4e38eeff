"""Joining outcomes by seed and id: what is kept, what is told, and that intervals cover."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakteach.statistics.cross_fit import clustered_share
from weakteach.statistics.crossed import (
    components,
    mean,
    win_rate,
)
from weakteach.statistics.joined import (
    LEAST_SHARE,
    Column,
    Missing,
    aligned,
    average,
    crossed,
    minus,
    overlapping,
)


def column(values):
    ids = sorted(values)
    return Column(np.array(ids, dtype=str), np.array([float(values[key]) for key in ids]))


def named(count, value=lambda n: n, but=()):
    return column({f"p{n:03}": value(n) for n in range(count) if n not in but})


def test_crossing_goes_by_id_and_tells_what_it_left_out():
    joined = crossed({4: named(10, but=[3]), 1: named(10, lambda n: 10 * n, but=[7])})
    assert joined.seeds == (1, 4)
    assert list(joined.ids) == [f"p{n:03}" for n in (0, 1, 2, 4, 5, 6, 8, 9)]
    assert joined.matrix[1].tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert joined.matrix[0].tolist() == [0, 10, 20, 40, 50, 60, 80, 90]
    assert list(joined.asked) == [f"p{n:03}" for n in range(10)]
    assert joined.left_out == joined.mean().left_out == 2


def test_crossing_refuses_below_a_share_and_says_how_many():
    few = crossed({0: named(10), 1: column({f"p{n:03}": n for n in range(3, 13)})})
    assert isinstance(few, Missing)
    assert few.reason == "the 2 seeds share 7 of 13 prompts or pairs, too few to compare"
    assert LEAST_SHARE == 0.8
    assert not isinstance(crossed({0: named(10), 1: named(10, but=[0, 1])}), Missing)


def test_what_has_no_outcome_counts_as_left_out():
    answered = named(10, but=[3, 7])
    some = replace(answered, lacking=np.array(["p007", "p003"]))
    assert (crossed({0: answered}).left_out, crossed({0: some}).left_out) == (0, 2)
    assert crossed({0: some, 1: named(10, but=[5])}).reason.startswith("the 2 seeds share 7 of 10")
    assert overlapping({0: some, 1: named(5)}).left_out == 1
    most = replace(answered, lacking=np.array([f"x{n}" for n in range(12)]))
    for join in (crossed, overlapping):
        assert "seed has an outcome of 8 of 20 prompts or pairs" in join({0: most}).reason
    difference = minus(crossed({0: some}), crossed({0: named(10)}))
    assert (difference.left_out, difference.mean().prompts) == (2, 8)


def test_a_chain_of_joins_is_held_to_the_first_members():
    a, b = crossed({0: named(10, but=[0])}), crossed({0: named(10, but=[1])})
    c = crossed({0: named(10, but=[2])})
    assert minus(minus(a, b), c).reason.startswith("what is compared share 7 of 10")


def test_one_quarantined_prompt_in_each_of_two_cells_does_not_misalign_them():
    one = crossed({0: named(20, but=[3]), 1: named(20, but=[3])})
    other = crossed({0: named(20, lambda n: n - 1, but=[15]), 1: named(20, lambda n: n - 1)})
    found = minus(one, other)
    assert found.matrix.tolist() == [[1.0] * 18] * 2
    assert found.left_out == 2


def test_differences_are_of_the_seeds_that_both_have():
    one = crossed({seed: named(5, lambda n, s=seed: n + s) for seed in (0, 1, 2)})
    other = crossed({seed: named(5) for seed in (2, 1)})
    assert minus(one, other).seeds == (1, 2)
    assert minus(one, other).seed_means == (1.0, 2.0)
    assert minus(one, crossed({7: named(5)})) == Missing("no seed in common")


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=1), st.integers(2, 4))
def test_the_order_in_which_outcomes_come_does_not_matter(order, lacking, seeds):
    values = {f"p{n}": float(n * n) for n in order if n not in lacking}
    columns = {seed: column({k: v + seed for k, v in values.items()}) for seed in range(seeds)}
    joined = crossed(dict(reversed(columns.items())))
    assert joined.seeds == tuple(range(seeds))
    expected = {key: value + 1 for key, value in values.items()}
    assert dict(zip(joined.ids.tolist(), joined.matrix[1].tolist(), strict=True)) == expected
    assert average([joined, joined]).matrix.tolist() == joined.matrix.tolist()


def test_missing_stays_missing_for_its_reason():
    none, some = Missing("why"), crossed({0: named(4)})
    assert minus(none, some) == minus(some, none) == average([some, none]) == none
    assert aligned([none]) == none
    assert crossed({}) == Missing("not measured yet")


def test_overlapping_seeds_of_the_same_pairs_are_crossed_ones():
    columns = {s: named(9, lambda n, s=s: np.sin(3 * n + s)) for s in range(3)}
    found, expected = overlapping(columns), crossed(columns)
    assert np.allclose(found.matrix, expected.matrix)
    assert mean(found.matrix).low == pytest.approx(mean(expected.matrix).low)


def test_overlapping_seeds_keep_their_means_and_share_the_variance_of_shared_pairs():
    """Two seeds of three pairs each, two of them shared, by hand."""
    found = overlapping({0: column({"a": 1, "b": 2, "c": 6}), 1: column({"b": 4, "c": 8, "d": 0})})
    assert found.seed_means == pytest.approx((3.0, 4.0))
    parts = components(found.matrix)
    # Through b and c: ((2 - 3)(4 - 4) + (6 - 3)(8 - 4)) / √(3·2·3·2) = 12/6.
    assert parts.from_prompts == pytest.approx(2.0)
    assert parts.from_seeds == pytest.approx(0.5 / 2)
    assert parts.mean == pytest.approx(3.5)


def test_a_difference_of_disjoint_pairs_is_that_of_the_means():
    one = overlapping({0: column({"a": 1, "b": 3}), 1: column({"c": 5, "b": 7})})
    other = overlapping({0: column({"c": 0, "d": 2}), 1: column({"a": 1, "d": 1})})
    assert minus(one, other).seed_means == pytest.approx((1.0, 5.0))


def test_intervals_of_overlapping_seeds_cover_and_pooled_ones_do_not():
    """400 worlds in which three seeds each draw 60 of 100 pairs with strong effects of their own,
    and seeds differ little."""
    draws, covered, pooled = np.random.default_rng(5), 0, 0
    for _ in range(400):
        pair, seed = draws.normal(0, 1, 100), draws.normal(0, 0.05, 3)
        columns = {}
        for s in range(3):
            chosen = np.sort(draws.choice(100, 60, replace=False))
            values = pair[chosen] + seed[s] + draws.normal(0, 0.2, 60)
            columns[s] = Column(np.array([f"{n:03}" for n in chosen]), values)
        found = mean(overlapping(columns).matrix)
        covered += found.low <= 0 <= found.high
        alike = mean(np.concatenate([c.values for c in columns.values()])[None, :])
        pooled += alike.low <= 0 <= alike.high
    assert covered / 400 >= 0.94
    assert pooled / 400 < 0.9


def test_the_interval_of_clustered_hits_covers_and_one_of_single_hits_is_wilsons():
    alone = clustered_share(np.array([1, 0, 1, 1]), np.arange(4))
    plain = win_rate(3, 0, 1)
    assert alone.value == 0.75
    assert (alone.low, alone.high) == pytest.approx((plain.low, plain.high))
    # Every pair three times says no more than every pair once, whether or not all are alike.
    pairs = np.repeat(np.arange(4), 3)
    thrice = clustered_share(np.repeat([1, 0, 1, 1], 3), pairs)
    assert thrice.low <= alone.low
    assert thrice.high >= alone.high
    right = clustered_share(np.ones(12), pairs)
    assert right.low == pytest.approx(win_rate(4, 0, 0).low)
    draws, covered = np.random.default_rng(2), 0
    for _ in range(400):
        chance = draws.beta(2, 1, 80)  # of each pair to be labeled rightly; 2/3 on average
        hits = draws.random((3, 80)) < chance
        found = clustered_share(hits.ravel(), np.tile(np.arange(80), 3))
        covered += found.low <= 2 / 3 <= found.high
    assert covered / 400 >= 0.93
