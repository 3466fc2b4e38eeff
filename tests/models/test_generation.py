import json

import numpy as np
import pytest
import torch
from chat_models import chat_folder
from families import CONFIGS, LLAMA_LIKE, random_model, randomized
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import Lfm2Config

from weakteach.models.generation import draw_tokens, generate_responses
from weakteach.models.loading import Weights, load_causal
from weakteach.models.spec import ModelError
from weakteach.models.tiny.pretraining import build_tokenizer
from weakteach.models.tokens import load_tokenizer, prompt_tokens
from weakteach.worlds.world import world_pair

PROMPTS = [world_pair(3, index).prompt for index in range(10)]
NEW_TOKENS = 40
TOKENIZER = build_tokenizer()


@pytest.fixture(scope="module")
def policy(tiny):
    return load_causal(Weights(str(tiny))), load_tokenizer(tiny)


def responses(policy, prompts, seeds, batch_tokens=4096, temperature=0.7, samples=1):
    return generate_responses(
        *policy, prompts, seeds, temperature, NEW_TOKENS, batch_tokens, samples
    )


def plain_response(model, tokenizer, prompt, uniforms, temperature, room):
    """The whole sequence anew for each token, without cache, padding or batch."""
    (ids,) = prompt_tokens(tokenizer, [prompt])
    drawn = []
    for uniform in uniforms[:room]:
        with torch.no_grad():
            logits = model(torch.tensor([ids + drawn])).logits[0, -1].double()
        cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
        drawn.append(int((cumulative <= uniform * cumulative[-1]).sum()))
        if drawn[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(drawn, skip_special_tokens=True)


def test_the_draw_of_a_prompt_depends_on_its_seed_and_not_on_its_batch(policy):
    seeds = list(range(10))
    together = responses(policy, PROMPTS, seeds)
    assert together == responses(policy, PROMPTS, seeds, batch_tokens=1)
    assert together[::-1] == responses(policy, PROMPTS[::-1], seeds[::-1])
    assert together != responses(policy, PROMPTS, [seed + 100 for seed in seeds])


@pytest.mark.parametrize("family", CONFIGS)
def test_responses_are_those_of_the_plain_computation(family):
    """In batches that are refilled, and beyond the window of local layers."""
    changes = {"gpt-neo": {"window_size": 8}, "mistral": {"sliding_window": 8}}.get(family, {})
    model = random_model(family, **changes)
    prompts, seeds = PROMPTS[:6], list(range(6))
    ours = responses((model, TOKENIZER), prompts, seeds, batch_tokens=200, temperature=0.3)
    for prompt, seed, (text,) in zip(prompts, seeds, ours, strict=True):
        uniforms = np.random.default_rng(seed).random(NEW_TOKENS)
        assert text == plain_response(model, TOKENIZER, prompt, uniforms, 0.3, NEW_TOKENS)


ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=15)
@given(rows=ROWS, batch_tokens=st.integers(1, 600), samples=st.integers(1, 3))
def test_a_response_is_the_same_whatever_it_is_drawn_with(policy, rows, batch_tokens, samples):
    alone = {row: responses(policy, [PROMPTS[row[0]]], [row[1]])[0][0] for row in set(rows)}
    prompts = [PROMPTS[prompt] for prompt, _ in rows]
    together = responses(policy, prompts, [seed for _, seed in rows], batch_tokens, samples=samples)
    assert [texts[0] for texts in together] == [alone[row] for row in rows]


def test_samples_of_a_prompt_differ_and_are_the_same_however_many_there_are(policy):
    four = responses(policy, PROMPTS, range(10), samples=4)
    assert [texts[:2] for texts in four] == responses(policy, PROMPTS, range(10), 300, samples=2)
    assert all(len(set(texts)) > 1 for texts in four)


def test_a_long_prompt_takes_no_room_from_the_others(policy):
    """Only its own: the model reads 512 tokens."""
    long = " ".join(["yes"] * 508)
    (length,) = map(len, prompt_tokens(policy[1], [long]))
    alone = responses(policy, PROMPTS, range(10), batch_tokens=100_000)
    with_long = responses(policy, [*PROMPTS, long], range(11), batch_tokens=100_000)
    assert with_long[:10] == alone
    assert len(policy[1](with_long[10][0])["input_ids"]) <= 512 - length + 1
    assert responses(policy, [" ".join(["yes"] * 600)], [0]) == [[""]]


def test_the_prompt_is_read_once_for_all_its_samples(policy):
    model, read = policy[0], []
    handle = model.register_forward_pre_hook(
        lambda _, __, inputs: read.append(inputs["input_ids"].shape), with_kwargs=True
    )
    responses(policy, PROMPTS[:3], range(3), samples=5)
    handle.remove()
    assert [rows for rows, width in read if width > 1] == [3]
    assert max(rows for rows, width in read if width == 1) > 5
    assert read[-1][0] < 15  # rows that have ended are no longer computed


def test_responses_end_before_eos_and_within_the_limit(policy):
    for (text,) in responses(policy, PROMPTS, range(10)):
        assert "</s>" not in text
        assert "<pad>" not in text


@pytest.mark.parametrize(
    ("template", "ends"),
    [("plain", True), ("thinking", True), ("system left out", True), ("no system turn", False)],
)
def test_a_turn_ends_as_its_template_ends_it_whatever_the_config_names(tmp_path, template, ends):
    """The template without system turns ends a turn with EOS."""
    folder = chat_folder(tmp_path, template)
    model, tokenizer = load_causal(Weights(str(folder))), load_tokenizer(folder)
    says = [(json.dumps([{"role": "user", "content": text}]), None) for text in PROMPTS]

    def drawn():
        return generate_responses(
            model, tokenizer, PROMPTS, range(10), 0.7, NEW_TOKENS, 4096, 8, says
        )

    by_both = drawn()
    for named in (tokenizer.eos_token_id, [tokenizer.eos_token_id], None):
        model.generation_config.eos_token_id = named
        assert (drawn() == by_both) == ends


def test_layers_that_keep_no_keys_are_refused(policy):
    hybrid = Lfm2Config(**LLAMA_LIKE, layer_types=["conv", "full_attention"])
    with pytest.raises(ModelError, match=r"lfm2 have layers \(conv\) that keep no keys"):
        responses((randomized(hybrid), policy[1]), PROMPTS, range(10))


def test_draws_follow_the_softmax_at_the_temperature():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    rows, temperature = 20_000, 0.7
    uniforms = torch.tensor(np.random.default_rng(0).random(rows))
    drawn = draw_tokens(logits.expand(rows, -1), uniforms, temperature)
    expected = torch.softmax(logits.double() / temperature, -1).numpy() * rows
    assert chisquare(np.bincount(drawn, minlength=4), expected).pvalue > 1e-3
