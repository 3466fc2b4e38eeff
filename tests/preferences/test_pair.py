"""Pairs in canonical order, and every row of an input accounted for."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakteach.preferences.pair import (
    CHOICE_SCHEMA,
    GROUP_ROWS,
    PAIR_SCHEMA,
    QUARANTINE_SCHEMA,
    Comparison,
    DataError,
    Pair,
    Quarantined,
    canonical_pair,
    preference_set,
    refusal,
)
from weakteach.preferences.table import write_pairs

UNLIMITED = 2**31 - 1


def words(pairs: list[Pair]) -> list[int]:
    assert pairs, "a tokenizer need not accept an empty batch"
    return [
        max(len((pair.prompt + text).split()) for text in (pair.response_1, pair.response_2))
        for pair in pairs
    ]


def write(rows, out: Path, max_tokens: int = UNLIMITED):
    """The counts, and the three tables as lists of rows."""
    out.mkdir(exist_ok=True)
    counts = write_pairs(rows, out, "here", words, max_tokens)
    tables = {
        name: pq.read_table(out / f"{name}.parquet") for name in ("pairs", "choices", "quarantine")
    }
    assert tables["pairs"].schema == PAIR_SCHEMA
    assert tables["choices"].schema == CHOICE_SCHEMA
    assert tables["quarantine"].schema == QUARANTINE_SCHEMA
    return counts, *(tables[name].to_pylist() for name in tables)


def comparison(
    prompt: str = "a prompt",
    first: str = "one",
    second: str = "two",
    preferred: int | None = 1,
    place: str = "here:1",
) -> Comparison:
    return Comparison(place, prompt, first, second, preferred)


@given(st.text(), st.text(), st.text(), st.sampled_from([1, 2]))
def test_the_stored_order_of_a_pair_changes_nothing(prompt, first, second, preferred):
    pair, choice = canonical_pair(Comparison("a", prompt, first, second, preferred))
    swapped, swapped_choice = canonical_pair(Comparison("b", prompt, second, first, 3 - preferred))
    assert pair == swapped
    chosen = first if preferred == 1 else second
    for drawn, drawn_choice in ((pair, choice), (swapped, swapped_choice)):
        assert (drawn.response_1, drawn.response_2)[(drawn_choice or 0) - 1] == chosen
    if first != second:
        assert choice == swapped_choice


def test_the_order_says_nothing_about_the_choice():
    choices = [
        canonical_pair(comparison(prompt=f"p{n}", first="good", second="bad"))[1]
        for n in range(4000)
    ]
    assert abs(choices.count(1) - 2000) < 200


def test_texts_cannot_slide_between_the_fields_of_an_id():
    pair_a, _ = canonical_pair(comparison("ab", "c", "d"))
    pair_b, _ = canonical_pair(comparison("a", "bc", "d"))
    assert pair_a.pair_id != pair_b.pair_id


def test_a_pair_without_a_choice_has_none():
    assert canonical_pair(comparison(preferred=None))[1] is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (comparison(), None),
        (comparison(prompt=" \n"), "empty prompt"),
        (comparison(first=" "), "empty response"),
        (comparison(second=""), "empty response"),
        (comparison(second="one"), "equal responses"),
        (comparison(second="\ud800"), "bad Unicode"),
        (comparison(prompt="\udcff"), "bad Unicode"),
    ],
)
def test_refusal(row, reason):
    assert refusal(row) == reason


def test_pairs_of_contradictory_choices_are_out_with_all_their_rows(tmp_path):
    rows = [
        comparison(place="f:1"),
        comparison(place="f:2"),
        comparison(place="f:3", preferred=2),
        comparison(place="f:4", first="three"),
    ]
    counts, pairs, _, quarantine = write(rows, tmp_path)
    assert counts == {"rows": 4, "pairs": 1, "choices": 1, "quarantined": 3}
    assert [(q["place"], q["reason"]) for q in quarantine] == [
        (f"f:{n}", "contradictory choices") for n in (1, 2, 3)
    ]
    assert {pairs[0]["response_1"], pairs[0]["response_2"]} == {"three", "two"}
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["pair_id"] is not None for row in rows] == [True] * 4


def test_a_choice_of_a_later_row_counts_for_the_pair(tmp_path):
    counts, _, choices, _ = write([comparison(preferred=None), comparison(preferred=2)], tmp_path)
    assert counts == {"rows": 2, "pairs": 1, "choices": 1, "quarantined": 1}
    assert len(choices) == 1


def test_duplicates_in_both_orders_are_quarantined(tmp_path):
    rows = [
        comparison(place="f:1"),
        comparison(place="f:2"),
        comparison(place="f:4", first="two", second="one", preferred=2),
        comparison(place="f:5", first="three"),
    ]
    counts, pairs, choices, quarantine = write(rows, tmp_path)
    assert counts == {"rows": 4, "pairs": 2, "choices": 2, "quarantined": 2}
    assert [(q["place"], q["reason"]) for q in quarantine] == [
        (f"f:{n}", "duplicate pair") for n in (2, 4)
    ]
    first = next(p for p in pairs if {p["response_1"], p["response_2"]} == {"one", "two"})
    choice = next(c["choice"] for c in choices if c["pair_id"] == first["pair_id"])
    assert first[f"response_{choice}"] == "one"


def test_a_duplicate_far_from_its_first_is_found(tmp_path):
    rows = [comparison(prompt=f"p{n % GROUP_ROWS}") for n in range(GROUP_ROWS + 5)]
    counts, *_ = write(rows, tmp_path)
    assert counts["pairs"] == GROUP_ROWS
    assert counts["quarantined"] == 5


def test_too_long_counts_the_prompt_and_the_longer_response(tmp_path):
    rows = [
        comparison("a b", " c", " d e", place="f:1"),
        comparison("a b", " c", " d e f", place="f:2"),
    ]
    _, pairs, _, quarantine = write(rows, tmp_path, max_tokens=4)
    assert [pair["n_tokens"] for pair in pairs] == [4]
    assert quarantine == [{"place": "f:2", "reason": "too long", "detail": "5 tokens, at most 4"}]


def test_an_unlabeled_pair_has_no_row_among_the_choices(tmp_path):
    counts, pairs, choices, _ = write([comparison(preferred=None)], tmp_path)
    assert (len(pairs), choices, counts["choices"]) == (1, [], 0)


@pytest.mark.parametrize("rows", [[], [Quarantined("f:1", "bad JSON")]])
def test_no_pair_at_all_still_gives_three_tables(rows, tmp_path):
    counts, pairs, choices, quarantine = write(rows, tmp_path)
    assert (pairs, choices) == ([], [])
    assert counts["quarantined"] == len(quarantine) == len(rows)


texts = st.sampled_from(["", " ", "a", "b", "a b c d", "\n\nHuman: x", "\ud800", "\u2028é"])
comparisons = st.builds(
    Comparison, st.just("f:1"), texts, texts, texts, st.sampled_from([None, 1, 2])
)
refused = st.builds(Quarantined, st.just("f:1"), st.just("bad JSON"), st.just("why"))


@settings(max_examples=60)
@given(rows=st.lists(comparisons | refused, max_size=30))
def test_every_row_is_kept_or_quarantined(rows, tmp_path_factory):
    counts, pairs, choices, quarantine = write(rows, tmp_path_factory.mktemp("pairs"), 3)
    assert counts["rows"] == len(rows) == len(pairs) + len(quarantine)
    assert counts["pairs"] == len(pairs)
    assert counts["quarantined"] == len(quarantine)
    ids = [pair["pair_id"] for pair in pairs]
    assert max(Counter(ids).values(), default=1) == 1
    assert {choice["pair_id"] for choice in choices} <= set(ids)


def pair_table(*ids: str) -> pa.Table:
    rows = [
        {"pair_id": i, "prompt": "p", "response_1": f"{i}1", "response_2": f"{i}2"} for i in ids
    ]
    return pa.Table.from_pylist(
        [{**row, "source": "here", "n_tokens": 1} for row in rows], PAIR_SCHEMA
    )


def label_table(*labels: tuple[str, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"pair_id": i, "choice": choice} for i, choice in labels], CHOICE_SCHEMA
    )


def test_labels_meet_their_pairs_by_id_and_not_by_position():
    rows = preference_set(pair_table("a", "b", "c"), label_table(("c", 1), ("a", 2))).to_pylist()
    assert [(row["pair_id"], row["chosen"], row["rejected"]) for row in rows] == [
        ("a", "a2", "a1"),
        ("c", "c1", "c2"),
    ]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (label_table(("a", 1), ("a", 2)), "more than one label"),
        (label_table(("a", 3)), "not 1 or 2"),
        (label_table(("z", 1)), "have no pair"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(labels, sentence):
    with pytest.raises(DataError, match=sentence):
        preference_set(pair_table("a", "b"), labels)
