"""Labels of a prompted model: what it is asked and how its replies are read."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from asked import PAIRS, PART, answered, prefers_longer, shown
from chat_servers import completion, scripted, tiny_chat_model, transformers_server
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import LABEL_SCHEMA
from weakteach.labeling.prompted import annotation_question, read_answer
from weakteach.models.chat.endpoint import Chat, ChatError, Reply, named_option
from weakteach.steps.judging import PromptedLabels


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory):
    folder = tiny_chat_model(tmp_path_factory.mktemp("chat") / "model")
    with transformers_server(folder) as url:
        yield url, folder


def test_a_real_model_labels_as_its_own_logits_say(tmp_path, tiny_chat):
    url, folder = tiny_chat
    facts, labels, step = answered(tmp_path, url, model=str(folder), concurrency=2)
    tokenizer, model = (
        kind.from_pretrained(folder) for kind in (AutoTokenizer, AutoModelForCausalLM)
    )
    options = tokenizer.convert_tokens_to_ids(["1", "2"])
    prompt_tokens, one_better = 0, []
    for pair in step.part.read(Store(tmp_path / "store")).to_pylist():
        texts, drawn = [pair["response_1"], pair["response_2"]], []
        for order in (1, 2):
            asked = annotation_question("dialogue", pair["prompt"], *texts, seed=0)
            # The template puts two line breaks after each message.
            text = f"{asked.system}\n\n{asked.user}\n\nAssistant:"
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
            prompt_tokens += ids.shape[1]
            with torch.no_grad():
                first, second = model(ids).logits[0, -1, options].tolist()
            drawn.append(0.75 if (first > second) == (order == 1) else 0.25)
            texts.reverse()
        one_better.append(np.mean(drawn))
    assert np.exp(labels["reward_1"].to_numpy()) == pytest.approx(one_better)
    assert labels["choice"].to_pylist() == [1 if p > 0.5 else 2 for p in one_better]
    assert (facts["rows"], facts["missing"]) == (PAIRS, 0)
    assert facts["prompt_tokens"] == prompt_tokens
    assert facts["completion_tokens"] == facts["requests"] == 2 * PAIRS
    assert facts["by_logprobs"] == 0  # this server leaves them out


def test_log_probabilities_are_averaged_over_both_orders(tmp_path):
    def script(request, before):
        first, second = shown(request)
        chance = 0.9 if len(first) > len(second) else 0.6  # drawn to what is shown first
        said = {"1": math.log(chance), "2": math.log(1 - chance)}
        return completion("1", [("1", said)])

    with scripted(script) as server:
        facts, labels, step = answered(tmp_path, server)
    assert labels.schema.equals(LABEL_SCHEMA)
    assert labels.schema.metadata[b"annotator"] == step.fingerprint.encode()
    for pair, label in zip(
        step.part.read(Store(tmp_path / "store")).to_pylist(), labels.to_pylist(), strict=True
    ):
        longer = len(pair["response_1"]) > len(pair["response_2"])
        shorter = len(pair["response_1"]) < len(pair["response_2"])
        one = 0.65 if longer else 0.35 if shorter else 0.5
        assert label["pair_id"] == pair["pair_id"]
        assert math.exp(label["reward_1"]) == pytest.approx(one)
        assert 1 / (1 + math.exp(-label["margin"])) == pytest.approx(one)
        assert label["confidence"] == pytest.approx(abs(2 * one - 1))
    assert facts["by_logprobs"] == 2 * PAIRS
    assert facts["position_bias"] == pytest.approx(0.25, abs=0.06)
    assert facts["flips"] == PAIRS  # "1" is likelier in either order


@pytest.mark.parametrize(
    ("reply", "first_better"),
    [
        (Reply("1", ((("1", math.log(0.6)), ("2", math.log(0.2))),)), 0.75),
        (Reply(" 2", (((" 2", math.log(0.6)), ("1", math.log(0.2))),)), 0.25),
        # " 1" and "1" are one answer
        (Reply("1", ((("1", math.log(0.3)), (" 1", math.log(0.3)), ("2", math.log(0.2))),)), 0.75),
        # "2" is not listed: it has at most what is left, or as much as the least listed
        (Reply("1", ((("1", math.log(0.8)),),)), 0.8),
        (Reply("1", ((("1", math.log(0.9)), ("Reply", math.log(0.06))),)), 0.9 / 0.94),
        # the answer is not the first token
        (Reply("**1", ((("**", 0.0),), (("1", math.log(0.6)), ("2", math.log(0.2))))), 0.75),
        (Reply("Reply 2.", ()), 0.25),
        (Reply("1\n\n1 is better", ()), 0.75),
        (Reply("1 is better than 2", ()), None),
        (Reply("10", ((("1", -0.1),), (("0", -0.1),))), None),
        (Reply("Both are good.", ()), None),
        (Reply("", ()), None),
        (None, None),
    ],
)
def test_what_a_reply_says(reply, first_better):
    answer = read_answer(reply)
    assert (answer and answer.first_better) == (first_better and pytest.approx(first_better))


WORDS = {"1": 1, "2": 2, "(1)": 1, "2.": 2, "**1**": 1, "10": 10, "1.5": 15, "a1": 0, "is": 0}


@given(st.lists(st.sampled_from(sorted(WORDS)), max_size=6))
def test_an_option_is_named_when_it_is_the_only_number(words):
    numbers = {WORDS[word] for word in words} - {0}
    named = numbers.pop() if len(numbers) == 1 and numbers <= {1, 2} else None
    assert named_option(" ".join(words), "12") == (named and str(named))


def test_identity_is_what_is_asked_and_not_how():
    plain = PromptedLabels(Chat("m"), PART)
    hosted = Chat(
        "m",
        base_url="http://host/v1",
        key_variable="KEY",
        concurrency=2,
        requests_per_minute=5,
        timeout=1.0,
        retries=9,
        input_price=1.0,
        output_price=2.0,
        max_cost=3.0,
    )
    assert PromptedLabels(hosted, PART).fingerprint == plain.fingerprint
    assert PromptedLabels(hosted, PART) == plain
    others = [
        PromptedLabels(Chat("n"), PART),
        PromptedLabels(Chat("m", temperature=1.0), PART),
        PromptedLabels(Chat("m", logprobs=False), PART),
        PromptedLabels(Chat("m"), PART, domain="summary"),
        PromptedLabels(Chat("m"), PART, seed=1),
    ]
    assert len({step.fingerprint for step in (plain, *others)}) == 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "http://user:pass@host/v1"}, "environment variable"),
        ({"base_url": "http://host/v1?key=abc"}, "environment variable"),
        ({"base_url": "host:8000"}, "not a URL"),
        ({"max_cost": 1.0}, "needs the prices"),
        ({"concurrency": 0}, "concurrency"),
        ({"requests_per_minute": -1.0}, "requests_per_minute"),
        ({"temperature": -0.1}, "temperature"),
        ({"model": ""}, "name of the model"),
    ],
)
def test_what_cannot_be_an_endpoint(fields, message):
    with pytest.raises(ChatError, match=message) as error:
        Chat(**{"model": "m"} | fields)
    assert "pass@" not in str(error.value)
    assert "abc" not in str(error.value)


def test_what_is_asked_for(tmp_path):
    with scripted(prefers_longer) as server:
        answered(tmp_path, server, temperature=0.5)
    body = server.requests[0].body
    assert (body["model"], body["temperature"], body["logprobs"]) == ("judge", 0.5, True)
    assert len({r.body["seed"] for r in server.requests}) == 2 * PAIRS
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    with scripted(prefers_longer) as server:
        answered(tmp_path, server, logprobs=False)
    assert not {"logprobs", "top_logprobs", "seed"} & set(server.requests[0].body)
    assert "summary" in annotation_question("summary", "p", "a", "b", 0).user.lower()


def test_planning_imports_no_client():
    code = "import weakteach.steps.judging, sys, json; print(json.dumps(list(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"openai", "torch", "ray", "scipy.stats"} & set(json.loads(out.stdout))
