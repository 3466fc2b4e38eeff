"""What holds in every embedded domain."""

import random
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_pairs import judged_pairs

from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import (
    DOMAINS,
    POSTS,
    VOCABULARY,
    WORLD,
    pretraining_document,
)
from weakteach.worlds.posts_words import POSTS_VOCABULARY
from weakteach.worlds.world_words import WORLD_VOCABULARY

in_every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
CEILINGS = {"world": 3.3, "posts": 2.8}


@pytest.mark.parametrize(("domain", "mean_of_phrases"), [(WORLD, 0.8), (POSTS, 1.2)], ids=DOMAINS)
def test_soups_of_the_pairs_own_words_and_phrases_lose(
    domain: Domain, mean_of_phrases: float
) -> None:
    rng = random.Random(0)
    words, phrases, whole = [], [], []
    for pair, gold, _ in judged_pairs(domain):
        if gold.reward < 2:
            continue
        text = pair.response_1.split()
        sentences = [s + " ." for s in pair.response_1.removesuffix(" .").split(" .")]
        whole.append(gold.reward)
        soup = " ".join(rng.sample(text, len(text)))
        words.append(domain.gold(pair.prompt, soup).reward)
        if len(sentences) > 1:
            phrases.append(domain.gold(pair.prompt, "".join(reversed(sentences))).reward)
    assert statistics.mean(whole) > 2.3
    assert statistics.mean(words) < -3
    assert statistics.mean(phrases) < mean_of_phrases


@in_every_domain
@given(response=st.text(), index=st.integers(0, 100))
def test_any_response_has_a_reward(domain: Domain, response: str, index: int) -> None:
    gold = domain.gold(domain.pair(0, index).prompt, response)
    assert -10 < gold.reward <= CEILINGS[domain.name]
    assert 0 <= gold.task <= 1
    assert 0 <= gold.garbage <= 1
    assert gold.words == len(response.split())


@in_every_domain
@given(
    words=st.lists(st.sampled_from([piece.strip() for piece in VOCABULARY]), max_size=60),
    index=st.integers(0, 100),
)
def test_any_words_have_a_reward(domain: Domain, words: list[str], index: int) -> None:
    gold = domain.gold(domain.pair(0, index).prompt, " ".join(words))
    assert -10 < gold.reward <= CEILINGS[domain.name]


@in_every_domain
def test_seeds_indices_and_streams_differ(domain: Domain) -> None:
    assert domain.pair(0, 1) != domain.pair(0, 2) != domain.pair(1, 2)
    assert len({domain.pair(0, index).prompt for index in range(500)}) > 450
    for draw in (domain.pair, domain.document):
        with pytest.raises(ValueError, match="negative"):
            draw(-1, 0)
        with pytest.raises(ValueError, match="negative"):
            draw(0, -1)


def test_pretraining_documents_are_those_of_the_domains_in_turn() -> None:
    assert set(VOCABULARY) == {*WORLD_VOCABULARY, *POSTS_VOCABULARY}
    assert pretraining_document(0, 4) == WORLD.document(0, 2)
    assert pretraining_document(0, 5) == POSTS.document(0, 2)


@pytest.mark.parametrize(
    ("domain", "mean", "deviation", "task"),
    [(WORLD, 0.78, 1.22, 0.51), (POSTS, 1.05, 1.09, 0.64)],
    ids=DOMAINS,
)
def test_measured_rewards_of_pairs(
    domain: Domain, mean: float, deviation: float, task: float
) -> None:
    golds = [gold for _, *both in judged_pairs(domain) for gold in both]
    rewards = [gold.reward for gold in golds]
    assert statistics.mean(rewards) == pytest.approx(mean, abs=0.05)
    assert statistics.pstdev(rewards) == pytest.approx(deviation, abs=0.04)
    assert CEILINGS[domain.name] - 0.4 < max(rewards) <= CEILINGS[domain.name]
    assert statistics.mean(gold.task for gold in golds) == pytest.approx(task, abs=0.02)
    assert all(gold.garbage == 0 for gold in golds)


@in_every_domain
def test_the_order_of_the_responses_says_nothing(domain: Domain) -> None:
    pairs = judged_pairs(domain)
    first = sum(gold_1.reward > gold_2.reward for _, gold_1, gold_2 in pairs)
    second = sum(gold_1.reward < gold_2.reward for _, gold_1, gold_2 in pairs)
    assert first / (first + second) == pytest.approx(0.5, abs=0.02)
    longer = sum(len(pair.response_1) > len(pair.response_2) for pair, _, _ in pairs)
    assert longer / len(pairs) == pytest.approx(0.5, abs=0.02)


def test_posts_are_drawn_and_judged_about_as_fast_as_the_world() -> None:
    def seconds(domain: Domain) -> float:
        start = time.process_time()
        for index in range(3000):
            pair = domain.pair(7, index)
            domain.gold(pair.prompt, pair.response_1)
            domain.gold(pair.prompt, pair.response_2)
        return time.process_time() - start

    assert seconds(POSTS) < 4 * seconds(WORLD)
