"""Every form of a row gives the same pair; what is no pair has its reason."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from written import (
    CHOSEN,
    CHOSEN_MESSAGE,
    EXPECTED,
    FORMS,
    HISTORY,
    PROMPT,
    REJECTED,
    REJECTED_MESSAGE,
    WRITERS,
    labeled,
    reasons,
    row_comparison,
    row_comparisons,
    write_jsonl,
    write_parquet,
)

from weakteach.preferences.pair import Comparison
from weakteach.preferences.sources import file_source


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file_name", WRITERS)
def test_every_form_in_every_file_gives_the_same_pair(form, file_name, tmp_path):
    source = file_source(WRITERS[file_name](tmp_path / file_name, [FORMS[form]] * 2))
    rows = list(source.read())
    assert [row.place.rpartition(":")[0] for row in rows] == [file_name] * 2
    assert [labeled(row) for row in rows] == [EXPECTED] * 2


def test_forms_may_be_mixed_in_one_file(tmp_path):
    rows = list(file_source(write_jsonl(tmp_path / "mixed.jsonl", list(FORMS.values()))).read())
    assert {labeled(row) for row in rows} == {EXPECTED}


def test_forms_may_be_mixed_in_one_table_with_nulls(tmp_path):
    mixed = [FORMS[form] for form in ("own", "explicit", "implicit")]
    columns = {name for row in mixed for name in row}
    mixed = [{name: row.get(name) for name in columns} for row in mixed]
    rows = list(file_source(write_parquet(tmp_path / "mixed.parquet", mixed)).read())
    assert [labeled(row) for row in rows] == [EXPECTED] * 3


def test_a_system_message_leads_as_plain_text():
    system = [{"role": "system", "content": "Be brief."}]
    row = row_comparison(
        {
            "chosen": system + HISTORY + CHOSEN_MESSAGE,
            "rejected": system + HISTORY + REJECTED_MESSAGE,
        },
        "f:1",
    )
    assert row == Comparison("f:1", "Be brief." + PROMPT, CHOSEN, REJECTED, 1)


@pytest.mark.parametrize("repeats", [True, False])
def test_a_prompt_as_text_before_messages_is_the_first_user_message(repeats):
    lead = [{"role": "user", "content": "Big?"}] if repeats else []
    row = row_comparison(
        {"prompt": "Big?", "chosen": lead + CHOSEN_MESSAGE, "rejected": lead + REJECTED_MESSAGE},
        "f:1",
    )
    assert row == Comparison("f:1", "\n\nHuman: Big?\n\nAssistant:", CHOSEN, REJECTED, 1)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "first", "second"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is", " blue.", " green."),
        ("The sky is blue.", "The sky is black.", "The sky is", " blue.", " black."),
        ("Q: sky?\nA: blue", "Q: sky?\nA: red", "Q: sky?\nA:", " blue", " red"),
        ("Q: sky?\nblue", "Q: sky?\nred", "Q: sky?\n", "blue", "red"),
        ("the cat sat", "the cat, too", "the", " cat sat", " cat, too"),
        ("a cat", "a cat sat", "a cat", "", " sat"),
    ],
)
def test_texts_that_are_no_transcripts_are_cut_between_words(
    chosen, rejected, prompt, first, second
):
    row = row_comparison({"chosen": chosen, "rejected": rejected}, "f:1")
    assert row == Comparison("f:1", prompt, first, second, 1)


Q, A = "\n\nHuman: q", "\n\nAssistant: a"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "refused"),
        ({"prompt": "p", "chosen": "a"}, "refused"),
        ({"prompt": "p", "response_1": "a", "choice": 1}, "refused"),
        ({None: "p", 3: "a"}, "refused"),
        ({"prompt": 1, "chosen": "a", "rejected": "b"}, "not text"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "empty prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "not text"),
        ({"prompt": "p", "chosen": "a", "rejected": 2.5}, "not text"),
        ({"prompt": "p", "chosen": {"a": 1}, "rejected": "b"}, "not text"),
        ({"prompt": "p", "chosen": b"a", "rejected": "b"}, "not text"),
        ({"prompt": "p", "chosen": CHOSEN_MESSAGE, "rejected": "b"}, "not text"),
        ({"prompt": HISTORY, "chosen": "a", "rejected": "b"}, None),
        ({"prompt": "p", "response_1": "a", "response_2": None}, "not text"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": 0}, "refused"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": True}, "refused"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": "A"}, None),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": [1]}, "refused"),
        ({"chosen": "a b", "rejected": "c d"}, "no common prompt"),
        ({"chosen": "", "rejected": "c d"}, "no common prompt"),
        ({"chosen": "a b", "rejected": "a b"}, "equal responses"),
        ({"chosen": Q + A, "rejected": Q + A}, "equal responses"),
        ({"chosen": Q + A + Q, "rejected": Q + A + Q}, "no common prompt"),
        ({"chosen": Q + A, "rejected": Q + A + "b" + Q + A}, "no common prompt"),
        ({"chosen": Q + A, "rejected": Q + "?" + A}, "no common prompt"),
        ({"chosen": Q + A, "rejected": Q + " a"}, "no common prompt"),
        ({"chosen": Q + "\n\nAssistant: ", "rejected": Q + A}, "empty response"),
        ({"chosen": CHOSEN_MESSAGE, "rejected": REJECTED_MESSAGE}, "no common prompt"),
        ({"chosen": HISTORY, "rejected": HISTORY}, "bad messages"),
        ({"chosen": [], "rejected": []}, "bad messages"),
        ({"chosen": ["a"], "rejected": ["b"]}, "no common prompt"),
        ({"chosen": [{"role": "tool", "content": "a"}], "rejected": []}, "bad messages"),
        ({"chosen": [{"role": ["user"], "content": "a"}], "rejected": []}, "bad messages"),
        ({"chosen": [{"role": "user", "content": None}], "rejected": []}, "not text"),
        ({"chosen": "[{'role': 'user', 'content': 'a'}]", "rejected": "b"}, "bad messages"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "empty prompt"),
    ],
)
def test_a_row_that_is_no_pair_has_its_reason(row, reason):
    assert reasons([row_comparison(row, "f:1")]) == [reason]


@pytest.mark.parametrize("choice", [None, "", " ", float("nan")])
def test_a_choice_may_be_unknown(choice):
    row = {**FORMS["own"], "choice": choice}
    assert row_comparison(row, "f:1") == Comparison("f:1", PROMPT, CHOSEN, REJECTED, None)


@pytest.mark.parametrize("choice", [2, 2.0, "2", " 2 ", "2.0"])
def test_a_choice_may_be_written_in_many_ways(choice):
    row = row_comparison({**FORMS["own"], "choice": choice}, "f:1")
    assert isinstance(row, Comparison)
    assert row.preferred == 2


def test_a_text_in_square_brackets_is_a_text():
    row = row_comparison({"prompt": "[1, 2]", "chosen": "[3", "rejected": "[]"}, "f:1")
    assert row == Comparison("f:1", "[1, 2]", "[3", "[]", 1)


PEOPLE, FLIGHTS = '[{"name": "A", "role": "engineer"}]', '[{"from": "Paris", "to": "London"}]'
CHAT = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]'
OTHER_CHAT = CHAT.replace("Yes", "No")


@pytest.mark.parametrize(
    "answers",
    [
        [(PEOPLE, "[]")],
        [(PEOPLE, PEOPLE.replace("A", "B"))],
        [(FLIGHTS, "no")],
        [('[{"role": "user"}]', '[{"role": "assistant"}]')],
        [(CHAT, OTHER_CHAT), ("Yes.", "No.")],
        [(CHAT, "No.")],
        [("[{'role': 'user', 'content': 'a'}]", "b")],
    ],
)
@pytest.mark.parametrize("prompt", ["Hi", None])
def test_answers_that_are_json_are_texts(prompt, answers, tmp_path):
    if prompt is None:  # both texts hold the prompt
        answers = [(f"Hi. {first}", f"Hi. {second}") for first, second in answers]
    rows = [{"prompt": prompt, "chosen": one, "rejected": two} for one, two in answers]
    rows = rows if prompt else [{n: row[n] for n in ("chosen", "rejected")} for row in rows]
    read = list(file_source(write_jsonl(tmp_path / "f.jsonl", rows)).read())
    assert [row.messages for row in read] == [None] * len(rows)
    if prompt:
        assert [(row.prompt, row.first, row.second) for row in read] == [
            ("Hi", *texts) for texts in answers
        ]


@pytest.mark.parametrize("lead", [{"prompt": "Hi"}, {}])
def test_a_whole_column_of_messages_as_json_is_read_as_messages(lead, tmp_path):
    rows = [{**lead, "chosen": CHAT, "rejected": OTHER_CHAT}] * 2
    for row in file_source(write_jsonl(tmp_path / "f.jsonl", rows)).read():
        assert row == Comparison(row.place, "\n\nHuman: Hi\n\nAssistant:", " Yes.", " No.", 1)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
    max_leaves=6,
)
names = st.sampled_from(["prompt", "chosen", "rejected", "response_1", "response_2", "choice"])


@given(st.dictionaries(names, values))
@example({"chosen": None, "rejected": ["", ""]})
def test_no_row_raises(row):
    results = row_comparisons(row, "f:1")
    assert results
    for result in results:
        assert result.place.partition("#")[0] == "f:1"
        if isinstance(result, Comparison):
            assert all(isinstance(t, str) for t in (result.prompt, result.first, result.second))
        else:
            (result.reason + result.detail).encode()


turns = st.text(st.sampled_from("ab \n:"), min_size=1, max_size=8)


@given(st.lists(turns, min_size=1, max_size=5), turns, turns)
def test_transcripts_are_cut_after_the_history_they_share(history, chosen, rejected):
    prompt = "".join(f"\n\nHuman: {turn}\n\nAssistant: {turn}" for turn in history[:-1])
    prompt += f"\n\nHuman: {history[-1]}\n\nAssistant:"
    row = row_comparison({"chosen": prompt + chosen, "rejected": prompt + rejected}, "f:1")
    assert row == Comparison("f:1", prompt, chosen, rejected, 1)
