"""Several responses to a prompt: their mean is the prompt's outcome, and what compares single
responses compares the first ones."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import WorldGold
from weakteach.evaluation.judge import RewardJudge
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs
from weakteach.steps.evaluation import Generate, GoldReward, Similarity
from weakteach.steps.judging import Verdicts
from weakteach.worlds.domains import WORLD

MODEL = find_model("opt-45k")
PART = Pairs(WorldSource(6, seed=3), (tokenizer_of(MODEL),)).all
SAMPLES = 3


def responses_of(samples, seed=0):
    return Generate(MODEL, PART, seed, max_new_tokens=12, samples=samples)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def rows(store, step, name):
    obtain(store, step, Resources())
    return pd.read_parquet(f"{store.path(step)}/{name}.parquet")


@pytest.fixture(scope="module")
def several(store, ray_here):
    return rows(store, responses_of(SAMPLES), "responses")


@pytest.fixture(scope="module")
def one(store, ray_here):
    return rows(store, responses_of(1), "responses")


def test_one_sample_is_as_it_always_was_and_the_first_of_several(one, several):
    assert list(one.columns) == ["prompt_id", "prompt", "response"]
    assert responses_of(1).fingerprint == Generate(MODEL, PART, 0, max_new_tokens=12).fingerprint
    assert responses_of(SAMPLES).fingerprint != responses_of(1).fingerprint
    assert several["sample"].tolist() == list(range(SAMPLES)) * len(one)
    first = several[several["sample"] == 0]
    assert first["response"].tolist() == one["response"].tolist()
    assert several["response"].nunique() > len(one)


def test_a_prompts_reward_is_the_mean_of_its_responses(store, several):
    step = GoldReward(responses_of(SAMPLES), WorldGold())
    rewards = rows(store, step, "rewards").set_index("prompt_id")["reward"]
    golds = [
        WORLD.gold(p, r).reward for p, r in zip(several["prompt"], several["response"], strict=True)
    ]
    wanted = several.assign(gold=golds).groupby("prompt_id")["gold"].mean()
    assert rewards.to_dict() == pytest.approx(wanted.to_dict())
    facts = store.record(step)["facts"]
    assert facts["rows"] == len(wanted)
    assert facts["mean"] == pytest.approx(wanted.mean())
    assert facts["se"] == pytest.approx(wanted.sem())
    single = rows(store, step, "samples")
    assert single["reward"].tolist() == pytest.approx(golds)


def test_a_judge_of_rewards_compares_the_first_responses(store, ray_here):
    judge = RewardJudge(WorldGold(), 0.0)
    found = []
    for samples in (1, SAMPLES):
        step = Verdicts(responses_of(samples), responses_of(samples, seed=1), judge)
        obtain(store, step, Resources())
        found.append(pq.read_table(f"{store.path(step)}/verdicts.parquet"))
    assert found[0].equals(found[1])


def test_a_similarity_is_of_the_first_responses(store, ray_here):
    minilm = find_model("all-minilm-l6-v2")
    found = [
        rows(store, Similarity(responses_of(samples), PART, minilm), "similarity")
        for samples in (1, SAMPLES)
    ]
    assert found[0].equals(found[1])
