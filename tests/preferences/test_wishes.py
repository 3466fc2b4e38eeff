"""Columns that a user names are read as he says, or refused."""

import pytest
from written import write_jsonl

from weakteach.preferences.pair import Comparison, DataError
from weakteach.preferences.rows import Wishes
from weakteach.preferences.sources import data_source

PKU = {"prompt": "How?", "response_0": "a", "response_1": "b"}
ARENA = {"prompt": "How?", "response_a": '["a"]', "response_b": '["b"]'}
WON = {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
SHP = {"history": "How?", "post": "Who?", "human_ref_a": "a", "human_ref_b": "b"}
OWN = {"prompt": "How?", "response_1": "a", "response_2": "b"}
BOTH = {"prompt": "How?", "chosen": "good", "rejected": "bad", "x": "a", "y": "b"}
X_Y = ["response_1=x", "response_2=y"]


def source_of(folder, rows, columns):
    path = write_jsonl(folder / "f.jsonl", rows)
    return data_source(str(path), Wishes.of(columns))


def texts(source):
    return [
        (row.prompt, row.first, row.second, row.preferred) if isinstance(row, Comparison) else None
        for row in source.read()
    ]


# Rows, wishes, what is read of each row, and the columns that are not used.
READ = {
    "a choice for PKU's": (
        [PKU | {"better_response_id": 0, "safer_response_id": n} for n in (1, 0)],
        ["choice=safer_response_id"],
        [("How?", "a", "b", 2), ("How?", "a", "b", 1)],
        ("better_response_id",),
    ),
    "PKU's own choice": (
        [PKU | {"better_response_id": 0}] * 2,
        ["choice=better_response_id"],
        [("How?", "a", "b", 1)] * 2,
        (),
    ),
    "a choice for one of a table of Arena": (
        [ARENA | WON | {"verdict": v} for v in "AB"],
        ["choice=verdict"],
        [("How?", "a", "b", 1), ("How?", "a", "b", 2)],
        tuple(WON),
    ),
    "a choice beside the same form's": (
        [OWN | {"choice": 1, "verdict": v} for v in (2, None, 1)],
        ["winner=verdict"],
        [("How?", "a", "b", n) for n in (2, None, 1)],
        ("choice",),
    ),
    "the signed choice": (
        [OWN | {"overall_preference": 2}],
        ["choice=overall_preference"],
        [("How?", "a", "b", 2)],
        (),
    ),
    "a prompt for SHP's": (
        [SHP | {"labels": 1}],
        ["prompt=post"],
        [("Who?", "a", "b", 1)],
        ("history",),
    ),
    "SHP's own choice": (
        [SHP | {"labels": n} for n in (1, 0)],
        ["choice=labels"],
        [("How?", "a", "b", 1), ("How?", "a", "b", 2)],
        ("post",),
    ),
    "a prompt among others": (
        [OWN | {"topic": "Who?"}],
        ["query=topic"],
        [("Who?", "a", "b", None)],
        ("prompt",),
    ),
    "a text after the prompt": (
        [OWN | {"more": "Now."}],
        ["input=more"],
        [("How?\n\nNow.", "a", "b", None)],
        (),
    ),
    "responses beside chosen ones": (
        [BOTH | {"choice": n} for n in (2, None, 1)],
        X_Y,
        [("How?", "a", "b", n) for n in (2, None, 1)],
        ("chosen", "rejected"),
    ),
    "a choice beside chosen ones": (
        [OWN | {"chosen": "good", "rejected": "bad", "verdict": n} for n in (2, None, 1)],
        ["choice=verdict"],
        [("How?", "a", "b", n) for n in (2, None, 1)],
        ("chosen", "rejected"),
    ),
    "a column that is empty": (
        [OWN | {"verdict": None}],
        ["choice=verdict"],
        [("How?", "a", "b", None)],
        ("verdict",),
    ),
    "choices that are missing where there are none": (
        [OWN],
        ["choice=verdict"],
        [("How?", "a", "b", None)],
        (),
    ),
    "a nested name with capitals": (
        [{"Meta": {"userPrompt": "Who?"}, "response_1": "a", "response_2": "b"}],
        ["prompt=meta.userPrompt"],
        [("Who?", "a", "b", None)],
        (),
    ),
    "a name with a dot": (
        [{"Meta.Prompt": "Who?", "response_1": "a", "response_2": "b"}],
        ["prompt=meta.prompt"],
        [("Who?", "a", "b", None)],
        (),
    ),
    "a prompt that is empty": ([BOTH | {"ask": None}], ["prompt=ask"], [None], ("x", "y")),
}


@pytest.mark.parametrize("case", READ)
def test_columns_that_are_named_are_read(case, tmp_path):
    rows, columns, expected, unused = READ[case]
    source = source_of(tmp_path, rows, columns)
    assert texts(source) == expected
    (file,) = source.recognized()
    assert set(file.unused) - {"prompt"} == set(unused) - {"prompt"}


REFUSED = {
    "a choice of chosen ones": (
        BOTH | {"verdict": 1}, ["choice=verdict"],
        "chosen and rejected, which has no use for --columns choice=verdict",
    ),
    "an unknown name": (OWN | {"verdict": 1}, ["verdict=verdict"], "verdict=verdict"),
    "two prompts": (OWN | {"q": "x"}, ["prompt=prompt", "query=q"], "query=q"),
    "two columns for one name": (OWN, ["prompt=q", "Prompt=x"], "two columns for prompt"),
    "a choice that is missing where there are some": (
        OWN | {"choice": 1}, ["choice=verdict"], "no column 'verdict'"),
    "a choice that is missing beside chosen ones": (
        BOTH, ["choice=verdict"], "no column 'verdict'"),
    "a prompt that is missing": (OWN, ["prompt=ask"], "no column 'ask'"),
    "a nested name that leads nowhere": (
        OWN | {"meta": {"ask": "x"}}, ["prompt=meta.asked"], r"no column 'meta\.asked'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_columns_that_cannot_be_read_are_refused(case, tmp_path):
    row, columns, told = REFUSED[case]
    with pytest.raises(DataError, match=told):
        source_of(tmp_path, [row], columns)


def test_a_choice_that_one_file_of_a_source_lacks_is_not_read_from_another_column(tmp_path):
    write_jsonl(tmp_path / "sh-0.jsonl", [OWN | {"verdict": n, "label": 1} for n in (1, 2)])
    write_jsonl(tmp_path / "sh-1.jsonl", [OWN | {"label": 1}])
    source = data_source(str(tmp_path / "sh-*.jsonl"), Wishes.of(["choice=verdict"]))
    assert [row[3] for row in texts(source)] == [1, 2, None]
