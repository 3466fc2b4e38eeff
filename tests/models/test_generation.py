import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from weakteach.models.generation import SeededDraw, generate_responses
from weakteach.models.loading import Weights, load_causal
from weakteach.models.tokens import load_tokenizer
from weakteach.worlds.world import world_pair

PROMPTS = [world_pair(3, index).prompt for index in range(10)]


@pytest.fixture(scope="module")
def policy(tiny):
    return load_causal(Weights(str(tiny))), load_tokenizer(tiny)


def responses(policy, prompts, seeds, batch_tokens=4096, temperature=0.7):
    return generate_responses(*policy, prompts, seeds, temperature, 40, batch_tokens)


def test_the_draw_of_a_prompt_depends_on_its_seed_and_not_on_its_batch(policy):
    seeds = list(range(10))
    together = responses(policy, PROMPTS, seeds)
    assert together == responses(policy, PROMPTS, seeds, batch_tokens=1)
    assert together[::-1] == responses(policy, PROMPTS[::-1], seeds[::-1])
    assert together != responses(policy, PROMPTS, [seed + 100 for seed in seeds])


def test_responses_end_before_eos_and_within_the_limit(policy):
    for text in responses(policy, PROMPTS, range(10)):
        assert "</s>" not in text
        assert "<pad>" not in text


def test_draws_follow_the_softmax_at_the_temperature():
    scores = torch.tensor([1.0, 0.0, -1.0, 2.0])
    rows, temperature = 20_000, 0.7
    draw = SeededDraw(range(rows), temperature, 1)
    standing = draw(torch.zeros(rows, 1, dtype=torch.long), scores.expand(rows, -1))
    counts = np.bincount(standing.argmax(-1), minlength=4)
    expected = torch.softmax(scores.double() / temperature, -1).numpy() * rows
    assert chisquare(counts, expected).pvalue > 1e-3
