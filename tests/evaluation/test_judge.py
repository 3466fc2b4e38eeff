import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_servers import Response, completion, scripted, tiny_chat_model, transformers_server
from hypothesis import given
from hypothesis import strategies as st

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import WorldGold
from weakteach.evaluation.judge import (
    VERDICT_SCHEMA,
    ChatJudge,
    RewardJudge,
    judge_question,
    read_scores,
)
from weakteach.evaluation.verdicts import contest_outcomes, summarize_verdicts
from weakteach.models.chat.endpoint import Chat, ChatError
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs, read_labels
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.judging import PairVerdicts, Verdicts
from weakteach.steps.labels import GoldLabels, HumanLabels

PAIRS = 6
PART = Pairs(WorldSource(PAIRS, seed=3), (tokenizer_of(find_model("opt-45k")),)).all
HUMAN = HumanLabels(PART)


def judge_at(server, style="scores", **fields):
    fields = {"timeout": 5.0, "retries": 0, "concurrency": 4} | fields
    return ChatJudge(Chat(fields.pop("model", "judge"), base_url=server.url, **fields), style)


def verdicts_of(store, step):
    facts = obtain(store, step)["facts"]
    return facts, pq.read_table(f"{store.path(step)}/verdicts.parquet")


def shown(request):
    first, rest = request.user.split("\n\nReply 1:\n")[1].split("\n\nReply 2:\n")
    return first, rest[: rest.rindex("\n\n")]


def grade(text):
    return 1 + len(text) % 10


def grades(request, before):
    first, second = shown(request)
    return completion(f"{grade(first)} {grade(second)}\nThe first is fine.")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def test_scores_of_both_orders_belong_to_the_right_response(tmp_path):
    store = Store(tmp_path)
    with scripted(grades) as server:
        facts, verdicts = verdicts_of(store, PairVerdicts(HUMAN, judge_at(server), repeats=2))
    assert verdicts.schema.equals(VERDICT_SCHEMA)
    assert len(verdicts) == len(server.requests) == PAIRS * 2 * 2
    texts = {row["pair_id"]: row for row in PART.read(store).to_pylist()}
    expected = Counter()
    for row in verdicts.to_pylist():
        one, two = (grade(texts[row["id"]][f"response_{side}"].strip()) for side in (1, 2))
        assert (row["score_1"], row["score_2"]) == (one, two)
        assert row["verdict"] == (1 if one > two else 2 if one < two else 0)
        expected[row["id"], row["verdict"]] += 1
    won = Counter(verdict for _, verdict in expected)
    assert (facts["wins"], facts["losses"], facts["ties"]) == (won[1], won[2], won[0])
    choices = dict(zip(*read_labels(store, HUMAN).to_pydict().values(), strict=True))
    assert facts["with_label"] == sum(choices[key] == verdict for key, verdict in expected)
    assert (facts["flips"], facts["consistency"], facts["missing"]) == (0, 1.0, 0)
    assert facts["repeats_compared"] == 2 * PAIRS


def test_a_judge_that_likes_what_it_sees_first_ties_and_flips_everywhere(tmp_path):
    with scripted(lambda request, before: completion("1")) as server:
        step = PairVerdicts(HUMAN, judge_at(server, "choice"), repeats=3)
        facts, verdicts = verdicts_of(Store(tmp_path), step)
    assert (facts["ties"], facts["flips"], facts["first_shown"]) == (PAIRS, 3 * PAIRS, 1.0)
    assert facts["win_rate"] == 0.5
    assert facts["longer"] == pytest.approx(0.5)
    assert facts["consistency"] == 1.0  # within an order it never changes its mind
    assert verdicts["verdict"].to_pylist() == [1, 2] * 3 * PAIRS


def test_a_judge_that_likes_length_is_told(tmp_path):
    def script(request, before):
        first, second = shown(request)
        return completion("1" if len(first) > len(second) else "2")

    with scripted(script) as server:
        facts, _ = verdicts_of(Store(tmp_path), PairVerdicts(HUMAN, judge_at(server, "choice")))
    assert facts["longer"] == 1.0
    assert facts["length_correlation"] > 0.7
    assert facts["longer_compared"] > 0


FAULTS = {
    "garbage": completion("Both are lovely."),
    "one score": completion("7"),
    "a score out of range": completion("11 3"),
    "http 400": Response({"error": {"message": "refused by a filter"}}, 400),
    "no JSON": Response("<html>"),
    "no text": completion(None),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_error_of_the_judge_is_missing_and_never_a_tie(tmp_path, fault):
    store = Store(tmp_path)
    obtain(store, PART.step)
    broken = PART.read(store).to_pylist()[0]
    at = (broken["response_1"].strip(), broken["response_2"].strip())

    def script(request, before):
        return fault if shown(request) == at else completion("9 2")

    with scripted(script) as server:
        step = PairVerdicts(HUMAN, judge_at(server), repeats=2)
        facts, verdicts = verdicts_of(store, step)
    rows = [row for row in verdicts.to_pylist() if row["id"] == broken["pair_id"]]
    assert [row["verdict"] for row in rows] == [None, 2, None, 2]
    assert rows[0]["score_1"] is None
    assert (facts["missing"], facts["missing_verdicts"]) == (1, 2)
    assert (facts["wins"], facts["losses"], facts["ties"]) == (0, 0, PAIRS - 1)
    assert contest_outcomes(verdicts)[broken["pair_id"]] is None


def test_a_judge_that_answers_nothing_makes_no_artifact(tmp_path):
    with (
        scripted(lambda request, before: completion("Hm.")) as server,
        pytest.raises(StepError, match=r"judge \(scores\) gave no verdict at all: .*'Hm\.'"),
    ):
        verdicts_of(Store(tmp_path), PairVerdicts(HUMAN, judge_at(server)))


def test_verdicts_that_were_given_are_not_asked_for_again(tmp_path):
    priced = {"concurrency": 1, "input_price": 10_000.0, "output_price": 0.0}
    store = Store(tmp_path)
    with scripted(grades) as server:
        capped = PairVerdicts(HUMAN, judge_at(server, max_cost=6.5, **priced), repeats=2)
        with pytest.raises(ChatError, match="7 of 24 questions"):
            obtain(store, capped)
        facts, _ = verdicts_of(store, PairVerdicts(HUMAN, judge_at(server), repeats=2))
    # At temperature 0 the repeats are the same request, yet each is asked.
    assert server.times_asked() == [2] * 2 * PAIRS
    assert (facts["reused"], facts["answered"]) == (7, 17)


def test_repeats_are_drawn_with_seeds_of_their_own(tmp_path):
    with scripted(grades) as server:
        step = PairVerdicts(HUMAN, judge_at(server, temperature=1.0), repeats=3)
        store = Store(tmp_path)
        obtain(store, step)
    assert len({request.body["seed"] for request in server.requests}) == PAIRS * 2 * 3
    assert all(0 <= request.body["seed"] < 2**31 for request in server.requests)


def test_a_real_model_gives_verdicts(tmp_path):
    folder = tiny_chat_model(tmp_path / "model")
    with transformers_server(folder) as url:
        judge = ChatJudge(Chat(str(folder), base_url=url, concurrency=1), "choice")
        store = Store(tmp_path / "store")
        facts, verdicts = verdicts_of(store, PairVerdicts(HUMAN, judge, pairs=4, repeats=1))
        scores = PairVerdicts(HUMAN, ChatJudge(judge.chat, "scores"), pairs=2, repeats=1)
        with pytest.raises(StepError, match=r"'[12]'"):  # it has no two scores to give
            obtain(store, scores)
    assert facts["wins"] + facts["losses"] + facts["ties"] == facts["contests"] == 4
    assert set(verdicts["reply"].to_pylist()) <= {"1", "2"}
    assert facts["completion_tokens"] == facts["requests"] == 8


def policy_responses(seed):
    return Generate(find_model("opt-45k"), PART, seed, max_new_tokens=12)


def test_policies_are_compared_by_gold_without_an_endpoint(store, ray_here):
    first, second = policy_responses(0), policy_responses(1)
    step = Verdicts(first, second, RewardJudge(WorldGold(), 0.0), repeats=2)
    facts, verdicts = verdicts_of(store, step)
    rewards = [
        pd.read_parquet(f"{store.path(GoldReward(side, WorldGold()))}/rewards.parquet")
        for side in (first, second)
    ]
    both = rewards[0].merge(rewards[1], on="prompt_id")
    assert facts["contests"] == len(both)
    assert facts["wins"] == (both.reward_x > both.reward_y).sum()
    assert facts["losses"] == (both.reward_x < both.reward_y).sum()
    assert (facts["flips"], facts["missing"]) == (0, 0)
    mirrored, _ = verdicts_of(store, Verdicts(second, first, step.judge, repeats=2))
    assert (mirrored["wins"], mirrored["losses"]) == (facts["losses"], facts["wins"])
    some, _ = verdicts_of(store, Verdicts(first, second, step.judge, prompts=3, seed=1))
    assert some["contests"] == 3
    parents = {parent["step"] for parent in store.record(step)["inputs"]}
    assert parents == {"Generate", "GoldReward"}
    assert verdicts["reply"].null_count == len(verdicts)


def test_equal_responses_tie_unasked(store, ray_here):
    same = policy_responses(0)
    with scripted(grades) as server:
        facts, _ = verdicts_of(store, Verdicts(same, same, judge_at(server)))
    assert not server.requests
    assert facts["identical"] == facts["ties"] == facts["contests"] > 0
    assert facts["consistency"] is None
    assert facts["longer"] is None


def test_a_judge_of_rewards_draws_as_bradley_and_terry(store, ray_here):
    temperature, repeats = 1.5, 400
    judge = RewardJudge(WorldGold(), temperature)
    step = PairVerdicts(HUMAN, judge, repeats=repeats)
    facts, verdicts = verdicts_of(store, step)
    gold = read_labels(store, GoldLabels(PART, WorldGold())).to_pandas().set_index("pair_id")
    drawn = verdicts.to_pandas().groupby("id").verdict.agg(lambda side: (side == 1).mean())
    chance = 1 / (1 + np.exp(-gold.margin[drawn.index] / temperature))
    spread = np.sqrt(chance * (1 - chance) / (2 * repeats))
    assert (abs(drawn - chance) < 4 * spread).all()
    again = Store(f"{store.root}/again")
    obtain(again, step)
    assert pq.read_table(f"{again.path(step)}/verdicts.parquet").equals(verdicts)
    sure, _ = verdicts_of(store, PairVerdicts(HUMAN, RewardJudge(WorldGold(), 0.0)))
    tossed, _ = verdicts_of(store, PairVerdicts(HUMAN, RewardJudge(WorldGold(), 1e6)))
    assert sure["consistency"] == 1.0
    # The mean share of the majority of ten tosses of a coin.
    coin = sum(math.comb(10, k) * max(k, 10 - k) for k in range(11)) / 10 / 2**10
    assert coin == pytest.approx(0.623, abs=1e-3)
    assert tossed["consistency"] == pytest.approx(coin, abs=4 * 0.09 / math.sqrt(2 * PAIRS))
    assert sure["consistency"] > facts["consistency"] > tossed["consistency"]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("8 7", (8, 7)),
        ("\n 9.5, 3 \nReply 1 is kinder.", (9.5, 3)),
        ("10 / 1", (10, 1)),
        ("8 7.", (8, 7)),
        ("8/10 7/10", (8, 7)),
        ("8.5/10, 7/10.", (8.5, 7)),
        ("8/10 / 7/10", (8, 7)),
        ("8/10", None),  # of 10, or two scores?
        ("8/10\n7/10", None),
        ("8/7", None),
        ("8/10 7", None),
        ("8/9 7/9", None),
        ("0 5", None),
        ("8", None),
        ("8 7 6", None),
        ("Reply 1: 8, Reply 2: 7", None),
        ("I would say\n8 7", None),
        ("", None),
    ],
)
def test_the_scores_stand_alone_on_the_first_line(text, scores):
    assert read_scores(text) == scores


SIGN = {0: 0, 1: 1, 2: -1}


@given(st.data())
def test_the_summary_is_that_of_a_few_lines_of_pandas(data):
    contests, repeats = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    texts = st.text("ab", min_size=1, max_size=4)
    rows = [
        {"id": f"c{i}", "response_1": "1" + data.draw(texts), "response_2": "2" + data.draw(texts)}
        for i in range(contests)
    ]
    verdicts = [
        {"id": row["id"], "repeat": r, "order": o, "verdict": v}
        for row in rows
        for r in range(repeats)
        for o in (1, 2)
        for v in [data.draw(st.sampled_from([0, 1, 2, None]))]
    ]
    shuffled = data.draw(st.permutations(verdicts))
    summary = summarize_verdicts(pa.Table.from_pylist(rows), _table(shuffled))

    frame = pd.DataFrame(verdicts)
    frame["sign"] = frame.verdict.map(SIGN, na_action="ignore")
    pairs = frame.pivot(index=["id", "repeat"], columns="order", values="sign").dropna()
    totals = pairs.sum(axis=1).groupby("id").sum()
    assert summary.wins == (totals > 0).sum()
    assert summary.losses == (totals < 0).sum()
    assert summary.ties == (totals == 0).sum()
    assert summary.missing == contests - len(totals)
    assert summary.missing_verdicts == frame.verdict.isna().sum()
    assert summary.flips == (pairs[1] * pairs[2] == -1).sum()
    assert summary.repeats_compared == len(pairs)
    sided = frame[frame.sign.fillna(0) != 0]
    firsts = (sided.verdict == sided.order).mean() if len(sided) else None
    assert summary.first_shown == (firsts if firsts is None else pytest.approx(firsts))
    gaps = {row["id"]: len(row["response_1"]) - len(row["response_2"]) for row in rows}
    unequal = sided[sided.id.map(gaps) != 0]
    longer = (unequal.sign * unequal.id.map(gaps) > 0).mean() if len(unequal) else None
    assert summary.longer_compared == len(unequal)
    assert summary.longer == (longer if longer is None else pytest.approx(longer))
    groups = [g.verdict.dropna() for _, g in frame.groupby(["id", "order"])]
    shares = [g.value_counts().max() / len(g) for g in groups if len(g) > 1]
    expected = pytest.approx(np.mean(shares)) if shares else None
    assert summary.consistency == expected
    json.dumps(summary.facts, allow_nan=False)


def _table(rows):
    filled = [{"score_1": None, "score_2": None, "reply": None, **row} for row in rows]
    return pa.Table.from_pylist(filled, VERDICT_SCHEMA)


def test_verdicts_of_other_contests_are_refused():
    contest = {"id": "a", "response_1": "x", "response_2": "y"}
    one = {"id": "b", "repeat": 0, "verdict": 1}
    both = _table([{**one, "order": order} for order in (1, 2)])
    with pytest.raises(ValueError, match="other contests"):
        summarize_verdicts(pa.Table.from_pylist([contest]), both)
    with pytest.raises(ValueError, match="not all in both orders"):
        summarize_verdicts(pa.Table.from_pylist([contest]), _table([{**one, "order": 1}]))
    shifted = _table([{**one, "id": id_, "order": 1 + n % 2} for n, id_ in enumerate("abbb")])
    with pytest.raises(ValueError, match="more verdicts than others"):
        summarize_verdicts(pa.Table.from_pylist([contest, {**contest, "id": "b"}]), shifted)


def test_identity_of_a_judge_is_the_model_and_the_style():
    steps = {
        PairVerdicts(HUMAN, judge).fingerprint
        for judge in (
            ChatJudge(Chat("m")),
            ChatJudge(Chat("m", base_url="http://host/v1", concurrency=1)),
            ChatJudge(Chat("m"), "choice"),
            ChatJudge(Chat("n")),
            RewardJudge(WorldGold(), 1.0),
            RewardJudge(WorldGold(), 2.0),
        )
    }
    assert len(steps) == 5


def test_both_styles_ask_what_they_read():
    for style, words in (("scores", ("helpful", "harmless", "detail", "10")), ("choice", ("0",))):
        question = judge_question(style, "Human: hi", "first text", "second text", 0)
        assert question.user.index("first text") < question.user.index("second text")
        assert all(word in question.user for word in words)
