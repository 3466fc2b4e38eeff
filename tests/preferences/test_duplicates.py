"""What a teacher saw: the same pair, the same prompt, a near-duplicate; and groups of these."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from weakteach.preferences.duplicates import (
    NEAR_DUPLICATE,
    SAME_PAIR,
    SAME_PROMPT,
    UNSEEN,
    groups,
    recognizer,
)

TEXT = "the quick brown fox jumps over the lazy dog while the cat sleeps under the old oak tree"
OTHER = "a recipe for bread asks for flour, water, salt, yeast and some hours of patience in all"


def table(*rows: tuple[str, str, str]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    schema = pa.schema([(n, pa.string()) for n in ("prompt", "response_1", "response_2")])
    return pa.table(columns, schema=schema)


TRAINED = table((f"Tell me: {TEXT}?", f"One. {TEXT}", f"Two. {TEXT} {OTHER}"))


def test_each_way_of_having_been_seen_is_told() -> None:
    pairs = table(
        (f"tell me {TEXT}", f"TWO {TEXT} {OTHER}", f"one  {TEXT}!"),  # order, case, punctuation
        (f"Tell me: {TEXT}?", "Yes.", "No."),
        (f"Please tell me: {TEXT}?", f"One. {TEXT}", f"Two. {TEXT} {OTHER}."),
        (OTHER, "Yes.", "No."),
    )
    assert recognizer(TRAINED)(pairs).tolist() == [SAME_PAIR, SAME_PROMPT, NEAR_DUPLICATE, UNSEEN]
    assert recognizer(TRAINED.slice(0, 0))(pairs).tolist() == [UNSEEN] * 4
    assert len(recognizer(TRAINED)(pairs.slice(0, 0))) == 0


def test_groups_join_prompts_and_near_duplicates_and_what_these_connect() -> None:
    pairs = table(
        ("A prompt", "one", "two"),
        (OTHER, f"One. {TEXT}", f"Two. {TEXT}"),
        ("a  prompt!", "three", "four"),
        (f"Now {OTHER}", f"One. {TEXT}", f"Two. {TEXT}"),
        (f"now {OTHER}", "five", "six"),  # of the same prompt as the one before
        ("Another prompt", "one", "two"),
    )
    first = groups(pairs).tolist()
    assert first == [first[0], first[1], first[0], first[1], first[1], first[5]]
    assert sorted(set(first)) == [0, 1, 2]


WORDS = st.lists(st.sampled_from(["red", "blue", "sky", "?", "!"]), max_size=4).map(" ".join)


@settings(max_examples=25)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=12))
def test_what_another_group_holds_was_not_seen(rows: list[tuple[str, str, str]]) -> None:
    pairs = table(*rows)
    group = groups(pairs)
    for number in set(group.tolist()):
        inside = pa.array(group == number)
        rest = pairs.filter(pa.array(group != number))
        assert set(recognizer(rest)(pairs.filter(inside)).tolist()) == {UNSEEN}
        assert set(recognizer(pairs)(pairs.filter(inside)).tolist()) == {SAME_PAIR}
