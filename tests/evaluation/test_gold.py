import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from weakteach.artifacts.errors import StepError
from weakteach.evaluation.gold import Scoring, WorldGold
from weakteach.models.loading import context_in, context_length, load_reward_model
from weakteach.models.reward_forms import encode
from weakteach.models.scoring import score_in_form
from weakteach.models.spec import ModelError
from weakteach.models.tokens import load_tokenizer
from weakteach.worlds.domains import POSTS, WORLD
from weakteach.worlds.world import world_pair

PAIRS = [world_pair(8, index) for index in range(12)]


def reward_model_folder(tiny, folder, outputs=1, family=None):
    """A random reward model on the tiny architecture, or on that of a family of encoders, with the
    tiny models' tokenizer."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny, num_labels=outputs)
    if family:
        config = AutoConfig.for_model(
            family, vocab_size=config.vocab_size, hidden_size=16, num_hidden_layers=1,
            num_attention_heads=2, intermediate_size=16, max_position_embeddings=64,
            attention_window=16, num_labels=outputs, pad_token_id=1,
        )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    load_tokenizer(tiny).save_pretrained(folder)
    return folder


def test_rewards_do_not_depend_on_the_batch(tiny, tmp_path):
    folder = reward_model_folder(tiny, tmp_path)
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    prompts, responses = [p.prompt for p in PAIRS], [p.response_1 for p in PAIRS]
    encoded, _ = encode("text", tokenizer, prompts, responses, context_length(model))
    together = score_in_form("text", model, tokenizer, encoded, 4096)
    alone = score_in_form("text", model, tokenizer, encoded, 1)
    assert np.abs(together - alone).max() < 1e-5
    ids = [*tokenizer(prompts[0] + responses[0])["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        plain = model(torch.tensor([ids])).logits.item()
    assert together[0] == pytest.approx(plain, abs=1e-5)
    assert together.std() > 0


@pytest.mark.parametrize(
    "family",
    [None, "deberta-v2", "roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm",
     "camembert", "mpnet", "data2vec-text", "ibert", "longformer", "luke", "markuplm"],
)  # fmt: skip
def test_a_response_beyond_the_context_is_read_as_far_as_it_goes(tiny, tmp_path, family):
    folder = reward_model_folder(tiny, tmp_path, family=family)
    model, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    endless = " é" * model.config.max_position_embeddings
    responses = [endless, endless + " more"]
    encoded, cut = encode("text", tokenizer, ["hello ."] * 2, responses, context_in(folder))
    assert len(encoded[0]["input_ids"]) == context_length(model)
    score, further = score_in_form("text", model, tokenizer, encoded, 4096)
    assert np.isfinite(score)
    assert score == further
    assert cut == [True, True]


def test_a_model_with_several_outputs_or_no_head_is_refused(tiny, tmp_path):
    with pytest.raises(ModelError, match="3 outputs"):
        load_reward_model(reward_model_folder(tiny, tmp_path, outputs=3))
    with pytest.raises(ModelError, match="no trained head"):
        load_reward_model(tiny)


def scored(domain, pairs):
    columns = ("response_1", "response_2")
    chunk = pa.Table.from_pylist([{"pair_id": str(i), **vars(p)} for i, p in enumerate(pairs)])
    work = Scoring(None, WorldGold(domain), "pair_id", columns, 1)
    return work.process(None, chunk).to_pylist()


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
def test_a_domains_gold_is_its_own_reward_of_each_response(domain):
    pairs = [domain.pair(8, index) for index in range(12)]
    for pair, row in zip(pairs, scored(domain, pairs), strict=True):
        assert row["response_1_reward"] == domain.gold(pair.prompt, pair.response_1).reward
        assert row["response_2_reward"] == domain.gold(pair.prompt, pair.response_2).reward


def test_a_domains_gold_refuses_the_prompts_of_another():
    with pytest.raises(StepError, match="gold of posts knows its own prompts alone"):
        scored(POSTS, PAIRS)
