"""Which of a file's columns holds the choices, and what its values mean."""

import pytest
from written import write_jsonl

from weakteach.preferences.pair import Comparison, DataError
from weakteach.preferences.rows import Wishes
from weakteach.preferences.sources import data_source

# Stands for a value whose row has no such column.
ABSENT = object()


def rows_of(**columns):
    """Rows of two responses with these columns, each given by its values."""
    return [
        {"prompt": f"How {n}?", "response_1": "a", "response_2": "b"}
        | {name: one for name, one in zip(columns, values, strict=True) if one is not ABSENT}
        for n, values in enumerate(zip(*columns.values(), strict=True))
    ]


def choices(source):
    """The choices of a source's rows; the reason of a row in quarantine."""
    return [row.preferred if isinstance(row, Comparison) else row.reason for row in source.read()]


SHARDS = {
    "one value in a shard": (("choice", [0, 1, 1]), ("choice", [1, 1]), [1, 2, 2, 2, 2]),
    "the other value in a shard": (("choice", [0, 1, 1]), ("choice", [0, 0]), [1, 2, 2, 1, 1]),
    "no value in a shard": (("choice", [0, 1]), ("choice", [None]), [1, 2, None]),
    "one value in each": (("choice", [2, 2]), ("choice", [1, 1]), [2, 2, 1, 1]),
    "signed": (("preference", [-2, 1, 3, -1]), ("preference", [1, 2]), [1, 2, 2, 1, 2, 2]),
    "columns of two names": (("choice", [0, 1]), ("winner", ["a", "a"]), [1, 2, 1, 1]),
}


@pytest.mark.parametrize("case", SHARDS)
def test_what_values_mean_is_judged_by_all_files_of_a_source(case, tmp_path):
    *shards, expected = SHARDS[case]
    for number, (column, values) in enumerate(shards):
        write_jsonl(tmp_path / f"sh-{number}.jsonl", rows_of(**{column: values}))
    source = data_source(str(tmp_path / "sh-*.jsonl"))
    assert choices(source) == expected
    told = {file.choices for file in source.overview().files}
    assert len(told - {"none"}) == len({column for column, _ in shards})
    turned = data_source([str(tmp_path / f"sh-{number}.jsonl") for number in (1, 0)])
    first = len(shards[0][1])
    assert choices(turned) == expected[first:] + expected[:first]


def test_files_whose_choices_are_written_in_two_ways_are_refused(tmp_path):
    for number, values in enumerate(([0, 1], [1, 2])):
        write_jsonl(tmp_path / f"sh-{number}.jsonl", rows_of(choice=values))
        assert choices(data_source(str(tmp_path / f"sh-{number}.jsonl"))) == [1, 2]
    with pytest.raises(DataError, match=r"sh-0\.jsonl and 1 more: it cannot be told.*'choice'"):
        data_source(str(tmp_path / "sh-*.jsonl"))


# Values of the columns preference and label, file by file, and the choices that they are.
BESIDE = {
    "null": ([([1, 2, None, None], [0, 0, 1, 2])], [1, 2, None, None]),
    "absent": ([([1, 2, ABSENT, ABSENT], [0, 0, 1, 2])], [1, 2, None, None]),
    "a tie": ([([1, 2, "tie", ""], [0, 0, 1, 2])], [1, 2, "tie", None]),
    "null in one file": ([([1, 2], [0, 1]), ([None, None], [1, 2])], [1, 2, None, None]),
    "alone": ([([ABSENT, ABSENT], [1, 2])], [1, 2]),
}


def write_beside(folder, files):
    for number, (preference, label) in enumerate(files):
        rows = rows_of(preference=preference, label=label)
        write_jsonl(folder / f"sh-{number}.jsonl", rows)
    return data_source(str(folder / "sh-*.jsonl"))


@pytest.mark.parametrize("case", BESIDE)
def test_one_column_holds_the_choices_of_all_rows(case, tmp_path):
    files, expected = BESIDE[case]
    source = write_beside(tmp_path, files)
    assert choices(source) == expected
    unused = () if case == "alone" else ("label",)
    assert {file.unused for file in source.overview().files} == {unused}


def test_a_choice_of_pku_is_not_read_from_a_column_of_another_form(tmp_path):
    row = {"prompt": "How?", "response_0": "a", "response_1": "b"}
    rows = [row | {"better_response_id": n, "label": m} for n, m in ((1, 0), (0, 1), (None, 1))]
    source = data_source(str(write_jsonl(tmp_path / "f.jsonl", rows)))
    assert choices(source) == [2, 1, None]
    assert source.recognized()[0].unused == ("label",)


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ([([None, None], [1, 2])], "sh-0"),
        ([([1, 2], [0, 1]), ([ABSENT, ABSENT], [1, 2])], "sh-1"),
    ],
    ids=["an earlier column is empty", "another file has its choices beside it"],
)
def test_a_column_that_may_hold_no_choices_is_refused(files, where, tmp_path):
    told = rf"{where}\.jsonl: .* 'label' or in 'preference'.* --columns choice=NAME"
    with pytest.raises(DataError, match=told):
        write_beside(tmp_path, files)


SIGNED = {
    "two": ([-1, 1, 1], [1, 2, 2]),
    "two and ties": ([-1, 0, 1], [1, "tie", 2]),
    "as texts": (["-1", "+1", "0.0"], [1, 2, "tie"]),
    "shares": ([-0.5, 1.0, 0.25], [1, 2, 2]),
    "negative ones alone": ([-1, -1, 0], [1, 1, "tie"]),
    "with a word": ([-2, 1, "?"], [1, 2, "bad choice"]),
    "a number beside letters": (["A", "B", -1], [1, 2, "bad choice"]),
    "not negative": ([0, 1, 1], [1, 2, 2]),
}


@pytest.mark.parametrize("case", SIGNED)
def test_numbers_of_which_any_is_negative_are_signed(case, tmp_path):
    values, expected = SIGNED[case]
    source = data_source(str(write_jsonl(tmp_path / "f.jsonl", rows_of(preference=values))))
    assert choices(source) == expected


SCALES = {
    "1 to 5": [1, 2, 3, 4, 5],
    "1 to 7, by annotators": [[{"value": n, "status": "submitted"}] for n in range(1, 8)],
    "2 to 6": [2, 3, 4, 5, 6],
    "0 to 5": [0, 1, 2, 3, 4, 5],
    "0 or 1, and 10": [0, 1, 10],
    "with halves": [1, 1.5, 2, 2.5],
    "shares": [0, 0.5, 1],
    "as texts": ["1.0", "2.0", "4.0"],
}


@pytest.mark.parametrize("case", SCALES)
def test_numbers_of_a_scale_are_no_two_responses(case, tmp_path):
    path = str(write_jsonl(tmp_path / "f.jsonl", rows_of(preference=SCALES[case])))
    with pytest.raises(DataError, match=r"f\.jsonl: it cannot be told .* --choice-values"):
        data_source(path)
    assert data_source(path, Wishes.of((), ("1", "2"))).overview().choices


def test_a_third_number_beside_two_responses_is_no_scale(tmp_path):
    path = write_jsonl(tmp_path / "f.jsonl", rows_of(preference=[1, 2, 3, "tie"]))
    assert choices(data_source(str(path))) == [1, 2, "bad choice", "tie"]
