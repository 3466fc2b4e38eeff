"""The posts: what their gold reward rewards, and the properties that studies rest on."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_pairs import judged_pairs

from weakteach.worlds.domain import DomainPair
from weakteach.worlds.domains import POSTS, WORLD
from weakteach.worlds.posts_gold import read_post
from weakteach.worlds.posts_words import POSTS_VOCABULARY

POST = (
    "\n\nPost: hello . i live near the park . my sister anna fixed the car . now my sister is"
    " glad . it was at the beach . emma was there too . should i wait ?\n\nTL;DR:"
)
WHOLE = " anna fixed the car at the beach and is now glad . not sure whether to wait ."
SHORT = "\n\nPost: it was on friday . i never painted it . my boss leo burned the shed .\n\nTL;DR:"


def reward(prompt: str, response: str) -> float:
    return POSTS.gold(prompt, response).reward


# ---- The gold reward ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        (SHORT, " leo burned the shed on friday .", 2.0),
        (SHORT, " in short : leo burned the shed on friday .", 2.5),
        (SHORT, " leo burned the shed on friday . take care .", 2.3),
        (SHORT, " to sum up : leo burned the shed on friday . i hope it ends well .", 2.8),
        (SHORT, " leo burned the shed .", 2 * 3 / 4),  # omission
        (SHORT, " leo burned the shed on sunday .", 2 * (3 - 2) / 4),  # a wrong word
        (SHORT, " emma burned the shed on friday .", 2 * (3 - 2) / 4),
        (SHORT, " leo painted the shed on friday .", 2 * (3 - 2) / 4),
        (SHORT, " leo burned the shed at the park on friday .", 2 * (4 - 2) / 4),  # invention
        (SHORT, " leo burned the shed on friday . not sure whether to pay .", 2 * (4 - 2) / 4),
        (SHORT, " emma painted the shed on friday .", 0.0),
        (SHORT, " leo burned the shed on friday", 1.0),
        (SHORT, " not this again . leo burned the shed on friday . do not write again .", 0.0),
        (SHORT, " leo burned the shed on friday . i never painted it .", 1.7),  # rambling
        (SHORT, " leo burned the shed on friday . as everyone can see .", 1.7),
        (SHORT, " it is hard to say .", 0.0),
        (SHORT, " in short : it is hard to say . take care .", 0.0),
        (SHORT, " take care .", 0.0),
        (SHORT, "", -4.0),
        (SHORT, " \n ", -4.0),
        (SHORT, " lorem ipsum", -4.0),
        (SHORT, " on friday leo burned the shed .", 2 * 3 / 4 - 3 * 2 / 7),  # order
        (POST, WHOLE, 2.0),
        (POST, " anna fixed the car and is now glad . not sure whether to wait .", 2 * 5 / 6),
        (POST, " anna fixed the car at the park . not sure whether to wait .", 2 * (4 - 2) / 6),
        (POST, " emma fixed the car .", 0.0),
    ],
)
def test_reward_of_a_text(prompt: str, response: str, expected: float) -> None:
    assert reward(prompt, response) == pytest.approx(expected)


def test_long_texts_lose_and_repetition_is_garbage() -> None:
    assert POSTS.gold(POST, WHOLE * 2).garbage == pytest.approx(0.5)
    # 36 words, 18 of them repeated: 6 words over the limit cost 0.3.
    assert reward(POST, WHOLE * 2) == pytest.approx(2 - 1.5 - 0.3)
    fillers = " as everyone can see . it goes without saying . in other words and so on ."
    assert reward(POST, WHOLE + fillers) == pytest.approx(2 - 0.9 - 0.25)


def test_a_soup_of_good_phrases_earns_far_less_than_the_summary() -> None:
    parts = [
        "in short :",
        WHOLE.split(" . ")[0] + " .",
        "not sure whether to wait .",
        "take care .",
    ]
    best = reward(POST, " ".join(parts))
    rng = random.Random(0)
    for _ in range(50):
        soup = rng.sample(parts, len(parts))
        if soup != parts:
            assert reward(POST, " ".join(soup)) <= best - 0.6


@given(st.text())
def test_a_prompt_that_is_no_post_is_refused(text: str) -> None:
    for prompt in (text, f"\n\nPost: {text}", f"\n\nPost: {text}\n\nTL;DR:"):
        with pytest.raises(ValueError, match="posts of the embedded domain only"):
            POSTS.gold(prompt, " hello .")
    with pytest.raises(ValueError, match="none"):
        POSTS.gold(WORLD.pair(0, 0).prompt, WHOLE)


# ---- The pairs ----------------------------------------------------------------------------------


def test_pairs_and_documents_never_change() -> None:
    assert POSTS.pair(0, 1) == DomainPair(
        "\n\nPost: my teacher ben fixed the fence . i blame the bet . is it better to leave ?"
        " thank you for reading .\n\nTL;DR:",
        " ben fixed the fence at the beach because of the bet . not sure whether to leave .",
        " ben fixed the window at the office because of the bet . not sure whether to help .",
    )
    assert POSTS.document(0, 1) == (
        "\n\nPost: my neighbor ivy painted the fence .\n\nTL;DR: ivy painted the fence ."
    )


def test_every_text_is_made_of_the_vocabulary_and_all_of_it_occurs() -> None:
    assert len(set(POSTS_VOCABULARY)) == len(POSTS_VOCABULARY)
    used = set()
    for pair, _, _ in judged_pairs(POSTS):
        assert pair.response_1 != pair.response_2
        for response in (pair.response_1, pair.response_2):
            text = pair.prompt + response
            pieces = re.findall(r"\n\n(?:Post|TL;DR):| \S+", text)
            assert "".join(pieces) == text
            used.update(pieces)
    assert used == set(POSTS_VOCABULARY)


def test_measured_documents() -> None:
    """A quarter are plain and right; of the others 80 % summarize their post without a fault."""
    plain = right = 0
    for index in range(4000):
        prompt, mark, response = POSTS.document(1, index).rpartition("\n\nTL;DR:")
        gold = POSTS.gold(prompt + mark, response)
        assert gold.garbage == 0
        if len(read_post(prompt + mark)) <= 4:
            assert gold.reward == 2
            plain += 1
        else:
            right += gold.task == 1
    assert plain / 4000 == pytest.approx(0.25, abs=0.02)
    assert right / (4000 - plain) == pytest.approx(0.8, abs=0.025)
