"""The posts: what their gold reward rewards, and the properties that studies rest on."""

import random
import re
import statistics
import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakteach.preferences.domain import Domain, DomainPair, Gold
from weakteach.preferences.embedded import POSTS, VOCABULARY, WORLD, pretraining_document
from weakteach.preferences.posts_gold import read_post
from weakteach.preferences.posts_words import POSTS_VOCABULARY
from weakteach.preferences.world_words import WORLD_VOCABULARY

POST = (
    "\n\nPost: hello . i live near the park . my sister anna fixed the car . now my sister is"
    " glad . it was at the beach . emma was there too . should i wait ?\n\nTL;DR:"
)
WHOLE = " anna fixed the car at the beach and is now glad . not sure whether to wait ."
SHORT = "\n\nPost: it was on friday . i never painted it . my boss leo burned the shed .\n\nTL;DR:"


@cache
def judged_pairs() -> list[tuple[DomainPair, Gold, Gold]]:
    pairs = [POSTS.pair(0, index) for index in range(6000)]
    return [
        (pair, POSTS.gold(pair.prompt, pair.response_1), POSTS.gold(pair.prompt, pair.response_2))
        for pair in pairs
    ]


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


def test_soups_of_the_pairs_own_words_and_phrases_lose() -> None:
    rng = random.Random(0)
    words, phrases, whole = [], [], []
    for pair, gold, _ in judged_pairs():
        if gold.reward < 2:
            continue
        text = pair.response_1.split()
        sentences = [s + " ." for s in pair.response_1.removesuffix(" .").split(" .")]
        whole.append(gold.reward)
        words.append(reward(pair.prompt, " ".join(rng.sample(text, len(text)))))
        if len(sentences) > 1:
            phrases.append(reward(pair.prompt, "".join(reversed(sentences))))
    assert statistics.mean(whole) > 2.3
    assert statistics.mean(words) < -3
    assert statistics.mean(phrases) < 1.2


@given(st.text())
def test_any_response_has_a_reward(response: str) -> None:
    gold = POSTS.gold(POST, response)
    assert -10 < gold.reward <= 2.8
    assert 0 <= gold.task <= 1
    assert 0 <= gold.garbage <= 1
    assert gold.words == len(response.split())


@given(st.lists(st.sampled_from([piece.strip() for piece in POSTS_VOCABULARY]), max_size=60))
def test_any_words_of_the_posts_have_a_reward(words: list[str]) -> None:
    for prompt in (POST, SHORT):
        assert -10 < reward(prompt, " ".join(words)) <= 2.8


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
    assert pretraining_document(0, 4) == WORLD.document(0, 2)
    assert pretraining_document(0, 5) == POSTS.document(0, 2)


def test_seeds_indices_and_streams_differ() -> None:
    assert POSTS.pair(0, 1) != POSTS.pair(0, 2) != POSTS.pair(1, 2)
    assert len({POSTS.pair(0, index).prompt for index in range(500)}) == 500
    for draw in (POSTS.pair, POSTS.document):
        with pytest.raises(ValueError, match="negative"):
            draw(-1, 0)
        with pytest.raises(ValueError, match="negative"):
            draw(0, -1)


def test_every_text_is_made_of_the_vocabulary_and_all_of_it_occurs() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert set(VOCABULARY) == {*WORLD_VOCABULARY, *POSTS_VOCABULARY}
    used = set()
    for pair, _, _ in judged_pairs():
        assert pair.response_1 != pair.response_2
        for response in (pair.response_1, pair.response_2):
            text = pair.prompt + response
            pieces = re.findall(r"\n\n(?:Post|TL;DR):| \S+", text)
            assert "".join(pieces) == text
            used.update(pieces)
    assert used == set(POSTS_VOCABULARY)


def test_measured_rewards_of_pairs() -> None:
    """Over many pairs: mean 1.05, deviation 1.09, ceiling 2.8, half of the summaries at fault."""
    golds = [gold for _, *both in judged_pairs() for gold in both]
    rewards = [gold.reward for gold in golds]
    assert statistics.mean(rewards) == pytest.approx(1.05, abs=0.05)
    assert statistics.pstdev(rewards) == pytest.approx(1.09, abs=0.04)
    assert max(rewards) == pytest.approx(2.8)
    assert statistics.mean(gold.task == 1 for gold in golds) == pytest.approx(0.46, abs=0.02)
    assert statistics.mean(gold.task for gold in golds) == pytest.approx(0.64, abs=0.02)
    assert all(gold.garbage == 0 for gold in golds)


def test_the_order_of_the_responses_says_nothing() -> None:
    pairs = judged_pairs()
    first = sum(gold_1.reward > gold_2.reward for _, gold_1, gold_2 in pairs)
    second = sum(gold_1.reward < gold_2.reward for _, gold_1, gold_2 in pairs)
    assert first / (first + second) == pytest.approx(0.5, abs=0.02)
    longer = sum(len(pair.response_1) > len(pair.response_2) for pair, _, _ in pairs)
    assert longer / len(pairs) == pytest.approx(0.5, abs=0.02)


def test_measured_accuracy_of_human_choices() -> None:
    rng = random.Random(0)
    right = [
        (POSTS.noise.choice(gold_1.reward, gold_2.reward, rng.random()) == 1)
        == (gold_1.reward > gold_2.reward)
        for _, gold_1, gold_2 in judged_pairs()
        if gold_1.reward != gold_2.reward
    ]
    assert statistics.mean(right) == pytest.approx(0.72, abs=0.02)


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


def test_posts_are_drawn_and_judged_about_as_fast_as_the_world() -> None:
    def seconds(domain: Domain) -> float:
        start = time.process_time()
        for index in range(3000):
            pair = domain.pair(7, index)
            domain.gold(pair.prompt, pair.response_1)
            domain.gold(pair.prompt, pair.response_2)
        return time.process_time() - start

    assert seconds(POSTS) < 4 * seconds(WORLD)
