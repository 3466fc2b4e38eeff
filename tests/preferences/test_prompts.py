"""Prompts that responses repeat, and texts that follow a prompt, are read once, and not lost."""

import json

import pytest
from written import row_comparison, write_jsonl

from weakteach.preferences.pair import Comparison
from weakteach.preferences.rows import AS_FOUND, Wishes
from weakteach.preferences.sources import data_source


def said(*turns):
    """Turns by the letters of their roles."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[role], "content": text} for role, text in turns]


def read(lead, prompt, **columns):
    """What is read as the prompt if both responses are messages that begin with ``lead``."""
    both = {n: said(*lead, ("a", f" {n}.")) for n in ("chosen", "rejected")}
    row = row_comparison({"prompt": prompt, **both, **columns}, "f:1")
    if not isinstance(row, Comparison):
        return row.reason
    assert (row.first.strip(), row.second.strip()) == ("chosen.", "rejected.")
    return [(m["role"][0], m["content"]) for m in json.loads(row.messages.prompt)]


WHO, BE = ("u", "Who?"), ("s", "Be.")
DOC = {"context": "Doc"}
MORE = [WHO, ("a", "Me."), ("u", "More?")]

# The prompt, the messages before the answers, further columns, and what is read as the prompt.
REPEATED = {
    "a blank": ("Who? ", [WHO], {}, [WHO]),
    "a line's end": (said(("u", "Who?\n")), [WHO], {}, [WHO]),
    "a system turn of the responses": (said(WHO), [BE, WHO], {}, [BE, WHO]),
    "a system turn of the prompt": (said(BE, WHO), [WHO], {}, [BE, WHO]),
    "a system turn of both": (said(BE, WHO), [BE, WHO], {}, [BE, WHO]),
    "two system turns": (said(BE, WHO), [("s", "No."), WHO], {}, "no common prompt"),
    "a system turn without a question": (said(WHO), [BE], {}, [BE, WHO]),
    "a context": ("Who?", [WHO], DOC, [("u", "Who?\n\nDoc")]),
    "a context, repeated": ("Who?", [("u", "Who?\n\nDoc")], DOC, [("u", "Who?\n\nDoc")]),
    "a context of messages": (said(WHO), [WHO], DOC, [("u", "Who?\n\nDoc")]),
    "a turn before others": ("Who?", MORE, {}, MORE),
    "a turn before others, with a context": (
        "Who?", MORE, DOC, [("u", "Who?\n\nDoc"), *MORE[1:]]),
    "a last turn": ("More?", MORE, {}, MORE),
    "another answer": (said(WHO, ("a", "You.")), [WHO], {}, [WHO]),
    "another question": ("Why?", [WHO], {}, "no common prompt"),
    "another question of messages": (said(("u", "Why?")), [WHO], {}, "no common prompt"),
    "more than the question": ("Be.\n\nWho?", [WHO], {}, "no common prompt"),
    "nothing": ("Who?", [], {}, [WHO]),
    "nothing, with a context": (said(WHO), [], DOC, [("u", "Who?\n\nDoc")]),
    "a blank prompt": (" ", [WHO], {}, [WHO]),
}  # fmt: skip


@pytest.mark.parametrize("case", REPEATED)
def test_messages_that_repeat_the_prompt_are_read_once(case):
    prompt, lead, columns, expected = REPEATED[case]
    assert read(lead, prompt, **columns) == expected


# Columns, and what is read as the prompt or why it is refused.
ENDS = {
    "a digit of the prompt": ({"prompt": "Add 10.", "input": "1"}, "Add 10.\n\n1"),
    "a part of a word": ({"prompt": "Say the word", "input": "or"}, "Say the word\n\nor"),
    "the last word": ({"prompt": "Say yes", "input": "yes"}, "Say yes\n\nyes"),
    "the last line": ({"prompt": "Of these:\n1\n2", "input": "2"}, "Of these:\n1\n2\n\n2"),
    "the last paragraph": ({"prompt": "Say:\n\nyes\n", "input": "yes"}, "Say:\n\nyes\n"),
    "the last two": ({"prompt": "Say:\n\na\n\nb", "input": "a", "context": "b"}, "Say:\n\na\n\nb"),
    "one of two": ({"prompt": "Say:\n\na", "input": "a", "context": "b"}, "Say:\n\na\n\nb"),
    "a number": ({"prompt": "Add 10.", "input": 5}, "Add 10.\n\n5"),
    "texts": ({"prompt": "Who?", "context": ["One", "", "Two"]}, "Who?\n\nOne\n\nTwo"),
    "nothing": ({"prompt": "Who?", "context": [], "input": None}, "Who?"),
    "a table": ({"prompt": "Who?", "context": {"a": "b"}}, "not text"),
    "messages": ({"prompt": "Who?", "context": said(WHO)}, "not text"),
    "after messages": (
        {"prompt": said(BE, WHO), "context": "Doc"}, "Be.\n\nHuman: Who?\n\nDoc\n\nAssistant:"),
    "after no question": ({"prompt": said(BE), "context": "Doc"}, "bad messages"),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_texts_that_follow_a_prompt_are_not_lost(case):
    columns, expected = ENDS[case]
    row = row_comparison({**columns, "chosen": "a", "rejected": "b"}, "f:1")
    assert (row.prompt if isinstance(row, Comparison) else row.reason) == expected


BESIDE = {"chosen": "no", "rejected": "yes"}


@pytest.mark.parametrize(
    ("first", "second", "beside"),
    [
        ("chosen", "rejected", {}),
        ("chosen_response", "rejected_response", {}),
        ("response_a", "response_b", {}),
        ("response_a", "response_b", BESIDE),
        ("answer_1", "answer_2", {}),
        ("output_1", "output_2", {}),
        ("completion_a", "completion_b", {}),
        ("human_ref_a", "human_ref_b", {"history": "Who? "}),
        ("summaries.0.text", "summaries.1.text", {"info": {"post": "Who? "}}),
    ],
)
def test_a_prompt_that_both_texts_of_all_rows_repeat_is_read_once(first, second, beside, tmp_path):
    def row(number, lead):
        texts = [f"{lead}{letter}{number}" for letter in "ab"]
        if first.startswith("summaries"):
            found = {"summaries": [{"text": text} for text in texts]}
        else:
            found = dict(zip((first, second), texts, strict=True))
        own = {} if beside.keys() & {"history", "info"} else {"prompt": "Who? "}
        return {**own, **found, **beside}

    wishes = Wishes.of([f"response_a={first}"]) if beside is BESIDE else AS_FOUND
    for leads, starts in ((["Who? ", "Who? "], ["", ""]), (["Who? ", ""], ["Who? ", ""])):
        rows = [row(number, lead) for number, lead in enumerate(leads)]
        source = data_source(str(write_jsonl(tmp_path / "f.jsonl", rows)), wishes)
        read = [(found.prompt, found.first, found.second) for found in source.read()]
        assert read == [
            ("Who? ", f"{start}a{number}", f"{start}b{number}")
            for number, start in enumerate(starts)
        ]
