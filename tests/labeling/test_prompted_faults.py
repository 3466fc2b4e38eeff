"""A server that fails, refuses, or is asked by a run that is killed."""

import json
import logging
import subprocess
import sys
import threading

import pyarrow.parquet as pq
import pytest
from asked import PAIRS, PART, answered, part_of, prefers_longer, shown
from chat_servers import Response, completion, scripted

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.store import Store
from weakteach.models.chat.endpoint import ChatError


def once(fault):
    """Every question meets the fault first, and is answered when it comes again."""
    return lambda request, before: prefers_longer(request, before) if before else fault


RETRIED = {
    "429": Response({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.2"}),
    "500": Response({"error": {"message": "oops"}}, 500, {"Retry-After": "0.05"}),
    "503, no JSON": Response("<html>busy</html>", 503, {"Retry-After": "0.05"}),
}


@pytest.mark.parametrize("fault", RETRIED.values(), ids=RETRIED)
def test_a_passing_fault_is_retried_after_the_time_that_the_server_names(tmp_path, fault):
    with scripted(once(fault)) as server:
        facts, _, _ = answered(tmp_path, server, retries=1)
    assert (facts["rows"], facts["missing"], facts["failures"]) == (PAIRS, 0, {})
    assert facts["requests"] == 4 * PAIRS
    wait = float(fault.headers["Retry-After"])
    for first in server.requests:
        times = [r.at for r in server.requests if r.body == first.body]
        assert times[1] - times[0] >= wait


LASTING = {
    "http 429": Response({"error": {"message": "quota"}}, 429, {"Retry-After": "0.02"}),
    "http 500": Response({"error": {"message": "oops"}}, 500, {"Retry-After": "0.02"}),
    "http 400": Response({"error": {"message": "too long"}}, 400),
    "malformed": Response("<html>Please sign in</html>"),
}
LASTING_BODIES = {
    "cut JSON": Response('{"choices": [{"message": {"content": "1'),
    "no choices": Response({"choices": []}),
    "other JSON": Response(["1"]),
    "no text": completion(None),
    "broken log-probabilities": completion("1", [("1", {"1": None})]),
}


def broken_for_one_pair(fault):
    """The fault meets one pair, in one order; all others are answered."""
    chosen = PART_TEXTS[0]

    def script(request, before):
        return fault if shown(request) == chosen else prefers_longer(request, before)

    return script


PART_TEXTS = []


@pytest.fixture(autouse=True, scope="module")
def _texts(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("texts"))
    obtain(store, PART.step)
    rows = PART.read(store).to_pylist()
    PART_TEXTS[:] = [(r["response_1"].strip(), r["response_2"].strip()) for r in rows]
    assert len(set(PART_TEXTS)) == PAIRS


@pytest.mark.parametrize(
    ("cause", "fault"),
    [*LASTING.items(), *(("malformed", fault) for fault in LASTING_BODIES.values())],
    ids=[*LASTING, *LASTING_BODIES],
)
def test_a_lasting_fault_is_a_missing_label_and_no_guess(tmp_path, cause, fault):
    with scripted(broken_for_one_pair(fault)) as server:
        facts, labels, step = answered(tmp_path, server, retries=1)
    assert (facts["rows"], facts["missing"], facts["failures"]) == (PAIRS - 1, 1, {cause: 1})
    first = step.part.read(Store(tmp_path / "store"))["pair_id"][0].as_py()
    assert first not in labels["pair_id"].to_pylist()
    answers = pq.read_table(
        tmp_path / "store/PromptedLabels" / step.fingerprint / "answers.parquet"
    )
    assert answers["first_better"].to_pylist()[0] is None
    assert answers["first_better"].null_count == 1


def test_a_reply_that_names_neither_is_missing_too(tmp_path):
    with scripted(broken_for_one_pair(completion("I cannot decide."))) as server:
        facts, _, _ = answered(tmp_path, server)
    assert (facts["rows"], facts["missing"], facts["failures"]) == (PAIRS - 1, 1, {})


def test_half_a_character_in_a_reply_is_a_question_mark(tmp_path):
    with scripted(broken_for_one_pair(completion("1 \ud83d"))) as server:
        facts, _, step = answered(tmp_path, server)
    assert (facts["rows"], facts["missing"]) == (PAIRS, 0)
    answers = pq.read_table(f"{Store(tmp_path / 'store').path(step)}/answers.parquet")
    assert answers["reply"].to_pylist()[0] == "1 ?"


def test_a_stored_reply_with_half_a_character_is_read(tmp_path):
    with scripted(prefers_longer) as server:
        with pytest.raises(ChatError, match="cap"):
            answered(tmp_path, server, max_cost=1.0, concurrency=1, input_price=10_000.0)
        (kept,) = (tmp_path / "store/PromptedLabels").rglob("answers/*.json")
        kept.write_text(json.dumps({**json.loads(kept.read_text()), "text": "1 \ud83d"}))
        facts, _, step = answered(tmp_path, server)
    assert (facts["rows"], facts["reused"]) == (PAIRS, 1)
    answers = pq.read_table(f"{Store(tmp_path / 'store').path(step)}/answers.parquet")
    assert answers["reply"].to_pylist().count("1 ?") == 1


def test_a_server_that_does_not_answer_in_time_is_a_missing_label(tmp_path):
    over = threading.Event()

    def script(request, before):
        if shown(request) == PART_TEXTS[0]:
            over.wait(20)
        return prefers_longer(request, before)

    with scripted(script) as server:
        facts, _, _ = answered(tmp_path, server, timeout=0.5)
        over.set()
    assert (facts["rows"], facts["missing"], facts["failures"]) == (PAIRS - 1, 1, {"timeout": 1})


def test_an_annotator_that_says_nothing_clear_makes_no_artifact(tmp_path):
    with (
        scripted(lambda request, before: completion("as you like")) as server,
        pytest.raises(StepError, match=r"labeled none of 6 pairs: .*'as you like'"),
    ):
        answered(tmp_path, server)
    assert not list((tmp_path / "store/PromptedLabels").glob("*/record.json"))


def test_a_server_that_is_down_is_given_up(tmp_path):
    with scripted(prefers_longer) as server:
        url = server.url
    with pytest.raises(ChatError, match="20 questions in a row, last by connection"):
        answered(tmp_path, url, part_of(30))


@pytest.mark.parametrize(
    ("status", "message"), [(401, "refuses the key"), (404, "knows no model judge")]
)
def test_a_refusal_of_key_or_model_ends_the_step_at_once(tmp_path, status, message):
    refusal = Response({"error": {"message": "no"}}, status)
    with (
        scripted(lambda request, before: refusal) as server,
        pytest.raises(ChatError, match=message),
    ):
        answered(tmp_path, server, concurrency=1, retries=3)
    assert len(server.requests) == 1


def test_the_cost_cap_ends_the_step_and_keeps_what_was_answered(tmp_path):
    priced = {"concurrency": 1, "input_price": 10_000.0, "output_price": 5_000.0}
    each = (100 * 10_000 + 2 * 5_000) / 1e6
    with scripted(prefers_longer) as server:
        with pytest.raises(ChatError, match=r"cap of 4 is reached: 4 of 12 questions.*for 4\.04"):
            answered(tmp_path, server, max_cost=4.0, **priced)
        with pytest.raises(ChatError, match="cap of 4 is reached"):
            answered(tmp_path, server, max_cost=4.0, **priced)
        assert len(server.requests) == 4
        facts, _, _ = answered(tmp_path, server, max_cost=100.0, **priced)
    assert server.times_asked() == [1] * 2 * PAIRS
    assert (facts["reused"], facts["answered"], facts["requests"]) == (4, 8, 8)
    assert facts["cost"] == pytest.approx(2 * PAIRS * each)


def test_a_cap_needs_an_endpoint_that_counts_tokens(tmp_path):
    def uncounted(request, before):
        return completion("1", usage=None)

    with scripted(uncounted) as server:
        with pytest.raises(ChatError, match="does not tell how many tokens"):
            answered(tmp_path, server, max_cost=1.0, input_price=1.0)
        facts, _, _ = answered(tmp_path, server)
    assert facts["unmetered_replies"] == 2 * PAIRS


CHILD = """
import sys
from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.chat.endpoint import Chat
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs
from weakteach.steps.judging import PromptedLabels

part = Pairs(WorldSource(int(sys.argv[1]), seed=3), (tokenizer_of(find_model("opt-45k")),)).all
chat = Chat("judge", base_url=sys.argv[2], concurrency=1, retries=0)
obtain(Store(sys.argv[3]), PromptedLabels(chat, part))
"""


def test_a_killed_run_asks_nothing_twice_that_was_answered(tmp_path):
    before_the_kill, arrived = 5, threading.Event()

    def script(request, before):
        if len(server.requests) == before_the_kill + 1 and not arrived.is_set():
            arrived.set()
            gone.wait(60)
        return prefers_longer(request, before)

    gone = threading.Event()
    with scripted(script) as server:
        obtain(Store(tmp_path / "store"), PART.step)
        arguments = [str(PAIRS), server.url, str(tmp_path / "store")]
        child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments])
        try:
            assert arrived.wait(120)
        finally:
            child.kill()
            child.wait()
        gone.set()
        facts, _, _ = answered(tmp_path, server)
    assert sorted(server.times_asked()) == [1] * (2 * PAIRS - 1) + [2]
    assert (facts["reused"], facts["answered"]) == (before_the_kill, 2 * PAIRS - before_the_kill)


def test_an_answer_that_a_kill_cut_short_is_asked_again(tmp_path):
    priced = {"concurrency": 1, "input_price": 10_000.0}
    with scripted(prefers_longer) as server:
        with pytest.raises(ChatError, match="cap"):
            answered(tmp_path, server, max_cost=2.0, **priced)
        kept = sorted((tmp_path / "store/PromptedLabels").rglob("answers/*.json"))
        assert len(kept) == 2
        kept[0].write_bytes(kept[0].read_bytes()[:10])
        facts, _, _ = answered(tmp_path, server, **priced)
    assert (facts["reused"], facts["answered"]) == (1, 2 * PAIRS - 1)


def test_the_key_reaches_the_server_and_no_file_or_log(tmp_path, monkeypatch, caplog):
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("SOME_KEY", secret)
    caplog.set_level(logging.DEBUG)

    def echoes(request, before):
        if shown(request) == PART_TEXTS[0]:
            return Response({"error": {"message": f"{request.authorization} is odd"}}, 400)
        return completion(f"1 {request.authorization}")

    with scripted(echoes) as server:
        answered(tmp_path, server, key_variable="SOME_KEY")
        assert {r.authorization for r in server.requests} == {f"Bearer {secret}"}
        refusal = Response({"error": {"message": f"wrong key {secret}"}}, 404)
        server.script = lambda request, before: refusal
        with pytest.raises(ChatError, match=r"wrong key \*\*\*"):
            answered(tmp_path, server, model="other", key_variable="SOME_KEY")
    assert secret not in caplog.text
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "record.json" for file in files)
    for file in files:
        assert secret.encode() not in file.read_bytes(), file
    answers = next(file for file in files if file.name == "answers.parquet")
    replies = pq.read_table(answers)["reply"].to_pylist()
    assert secret not in str(replies)
    assert "1 Bearer ***" in replies


def test_without_a_named_variable_no_key_of_the_environment_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    with scripted(prefers_longer) as server:
        answered(tmp_path, server)
    assert "sk-of-another-service" not in str([r.authorization for r in server.requests])


def test_a_named_variable_that_is_not_set_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with scripted(prefers_longer) as server, pytest.raises(ChatError, match="SOME_KEY"):
        answered(tmp_path, server, key_variable="SOME_KEY")
    assert not server.requests


def test_the_rate_limit_holds_for_retries_too(tmp_path):
    fault = Response({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.01"})
    with scripted(once(fault)) as server:
        answered(tmp_path, server, requests_per_minute=1200, retries=1, concurrency=8)
    times = sorted(request.at for request in server.requests)
    assert len(times) == 4 * PAIRS
    assert times[-1] - times[0] >= 0.05 * (len(times) - 1) - 0.05


def test_no_more_requests_are_under_way_than_allowed(tmp_path):
    lock, under_way, most = threading.Lock(), 0, 0

    def script(request, before):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.02)
        with lock:
            under_way -= 1
        return prefers_longer(request, before)

    with scripted(script) as server:
        answered(tmp_path, server, concurrency=3)
    assert most == 3
