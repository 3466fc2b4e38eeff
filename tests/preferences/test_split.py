"""Splits: no prompt in two parts, nested fractions, one test part for all seeds."""

import random
import time
from fractions import Fraction
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakteach.preferences.pair import PAIR_SCHEMA, DataError
from weakteach.preferences.split import hold_out, split_pairs

HALF = Fraction(1, 2)


class Parts(NamedTuple):
    labeled: pa.Table
    unlabeled: pa.Table
    test: pa.Table


def parts(pairs: pa.Table, fraction: Fraction, seed: int, test_pairs: int) -> Parts:
    test, rest = hold_out(pairs, test_pairs)
    return Parts(*split_pairs(rest, fraction, seed), test)


def table(prompts: list[str]) -> pa.Table:
    """One pair per entry; equal entries share their prompt."""
    rows = [
        {
            "pair_id": f"{number:032x}",
            "prompt": prompt,
            "response_1": "one",
            "response_2": "two",
            "source": "here",
            "n_tokens": 1,
        }
        for number, prompt in enumerate(prompts)
    ]
    return pa.Table.from_pylist(rows, PAIR_SCHEMA)


def ids(part: pa.Table) -> list[str]:
    return part["pair_id"].to_pylist()


def prompts(part: pa.Table) -> set[str]:
    return set(part["prompt"].to_pylist())


pair_tables = st.lists(st.integers(0, 40).map(str), min_size=1, max_size=120).map(table)
fractions = st.fractions(Fraction(1, 50), Fraction(49, 50))


@given(pair_tables, fractions, st.integers(), st.integers(1, 40), st.randoms())
def test_every_pair_and_every_prompt_in_one_part(pairs, fraction, seed, test_pairs, shuffler):
    try:
        split = parts(pairs, fraction, seed, test_pairs)
    except DataError:  # an empty part; the tests below look at those
        return
    labeled, unlabeled, test = split
    assert sorted(ids(labeled) + ids(unlabeled) + ids(test)) == sorted(ids(pairs))
    assert len(prompts(labeled) | prompts(unlabeled) | prompts(test)) == sum(
        len(prompts(part)) for part in split
    )
    assert all(part.num_rows and ids(part) == sorted(ids(part)) for part in split)
    assert all(part.schema == PAIR_SCHEMA for part in split)
    assert test.num_rows >= test_pairs
    assert labeled.num_rows >= fraction * (labeled.num_rows + unlabeled.num_rows)

    order = list(range(pairs.num_rows))
    shuffler.shuffle(order)
    assert parts(pairs.take(order), fraction, seed, test_pairs) == split


@given(st.integers(), st.integers(), fractions, fractions)
def test_fractions_are_nested_and_the_test_part_is_always_the_same(seed, other, low, high):
    low, high = sorted((low, high))
    pairs = table([str(n // 2) for n in range(200)])
    small, large = (parts(pairs, fraction, seed, 20) for fraction in (low, high))
    assert set(ids(small.labeled)) <= set(ids(large.labeled))
    assert small.test == large.test == parts(pairs, low, other, 20).test


def test_another_seed_labels_other_prompts():
    pairs = table([str(n) for n in range(200)])
    first, second = (parts(pairs, HALF, seed, 20) for seed in (0, 1))
    shared = prompts(first.labeled) & prompts(second.labeled)
    assert 20 < len(shared) < 70


def test_distinct_prompts_give_exact_sizes():
    split = parts(table([str(n) for n in range(1000)]), Fraction(1, 16), 0, 200)
    assert [part.num_rows for part in split] == [50, 750, 200]


def test_the_test_part_stays_when_pairs_of_other_prompts_are_added():
    names = [str(n) for n in range(100)]
    before = parts(table(names), HALF, 0, 50)
    after = parts(table([*names, "another"]), HALF, 0, 50)
    assert len(prompts(before.test) & prompts(after.test)) >= 49


def test_a_float_is_a_fraction_too():
    split = parts(table([str(n) for n in range(30)]), 0.3, 0, 10)  # type: ignore[arg-type]
    assert split.labeled.num_rows == 6


def test_rows_in_many_chunks():
    pairs = table([str(n // 3) for n in range(300)])
    chunked = pa.concat_tables([pairs.slice(at, 7) for at in range(0, 300, 7)])
    expected = parts(pairs, HALF, 0, 30)
    assert parts(chunked, HALF, 0, 30) == expected


@pytest.mark.parametrize("fraction", [Fraction(0), Fraction(1), Fraction(-1, 2), Fraction(3, 2)])
def test_a_fraction_outside_of_0_and_1_is_an_error(fraction):
    with pytest.raises(DataError, match="above 0 and below 1"):
        parts(table(["a", "b", "c"]), fraction, 0, 1)


@pytest.mark.parametrize(
    ("names", "fraction", "test_pairs", "sentence"),
    [
        ([], HALF, 1, "the test part would be empty: 0 pairs of 0 prompts"),
        (["a", "b", "c"], HALF, 0, "the test part would be empty: 3 pairs of 3 prompts"),
        (["a", "b", "c"], HALF, 3, "the training part would be empty: 3 pairs"),
        (["a", "b", "c"], HALF, 30, "Lower test_pairs"),
        (["a", "b"], HALF, 1, "the unlabeled part would be empty: 1 pairs of 1 prompts"),
        (["a", "b", "c"], Fraction(3, 4), 1, "Lower the fraction"),
        (["a"] * 9, HALF, 1, "9 pairs of 1 prompts"),
    ],
)
def test_an_empty_part_is_an_error_that_says_what_to_change(names, fraction, test_pairs, sentence):
    with pytest.raises(DataError, match=sentence):
        parts(table(names), fraction, 0, test_pairs)


def test_two_hundred_thousand_pairs_take_seconds():
    count = 200_000
    draw = random.Random(0)
    pairs = pa.table(
        {
            "pair_id": [f"{draw.getrandbits(128):032x}" for _ in range(count)],
            "prompt": [f"\n\nHuman: {n % 150_000}\n\nAssistant:" for n in range(count)],
            "response_1": ["one " * 50] * count,
            "response_2": ["two " * 50] * count,
        }
    )
    start = time.monotonic()
    split = parts(pairs, HALF, 22, 11_000)
    assert time.monotonic() - start < 30
    assert sum(part.num_rows for part in split) == count
