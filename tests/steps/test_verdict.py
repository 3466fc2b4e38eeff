"""Folds of labeled pairs, and verdicts on real tiny teachers."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reliability import Known

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.evaluation.teaching import seen_from_json
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.duplicates import UNSEEN, recognizer
from weakteach.preferences.pair import GROUP_ROWS
from weakteach.preferences.sources import WorldSource, file_source
from weakteach.statistics.cross_fit import clustered_share
from weakteach.steps.data import Pairs, read_labels
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.steps.verdict import (
    Fold,
    Folds,
    NewToTeacher,
    Verdict,
    cross_fitted,
    draw_folds,
    read_facts,
)
from weakteach.steps.views import Gated
from weakteach.training.recipes import DpoRecipe, Schedule, SftRecipe
from weakteach.worlds.domains import POSTS

PAIRS, FOLDS, REPEATS = 150, 3, 2
MODEL = find_model("opt-45k")
HALF = Fraction(1, 2)


def training(seed: int):
    def train(labels: HumanLabels) -> Dpo:
        sft = Sft(MODEL, labels, SftRecipe(Schedule(1e-3, batch=16, steps=2)), seed)
        return Dpo(sft, labels, DpoRecipe(Schedule(1e-3, batch=16, steps=6), beta=0.2), seed)

    return train


def pairs_of(source) -> Pairs:
    return Pairs(source, (tokenizer_of(MODEL),))


LABELED = pairs_of(WorldSource(PAIRS)).all
DRAWN = Folds(LABELED, FOLDS, REPEATS)
HALVES = Folds(LABELED, 2, 1)  # fewer teachers to train


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def test_folds_hold_every_labeled_pair_once_a_round_and_share_no_prompt(store):
    obtain(store, DRAWN)
    choices = LABELED.human_choices(store)["pair_id"].to_pylist()
    rounds = []
    for repeat in range(REPEATS):
        held = []
        for number in range(FOLDS):
            whole, half = Fold(DRAWN, repeat, number), Fold(DRAWN, repeat, number, HALF)
            for fold in (whole, half):
                obtain(store, fold)
            out, train, less = (p.read(store) for p in (whole.held_out, whole.train, half.train))
            assert set(recognizer(train)(out).tolist()) == {UNSEEN}
            ids = [set(table["pair_id"].to_pylist()) for table in (out, train, less)]
            assert ids[0] | ids[1] == set(choices)
            assert ids[2] < ids[1]
            assert len(ids[2]) == pytest.approx(len(ids[1]) / 2, abs=3)
            assert half.held_out.read(store).equals(out)
            assert len(whole.train.human_choices(store)) == len(ids[1])
            held.append(ids[0])
        assert sum(map(len, held)) == len(set().union(*held)) == len(choices)
        assert max(map(len, held)) - min(map(len, held)) <= 3
        rounds.append(held)
    assert rounds[0] != rounds[1]


@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=40).filter(lambda g: len(set(g)) >= 3),
    st.integers(0, 3),
)
def test_groups_stay_whole_and_the_order_of_the_pairs_does_not_matter(numbers, seed):
    group, ids = np.array(numbers), [f"{n:03d}" for n in range(len(numbers))]
    drawn = draw_folds(ids, group, 3, str(seed))
    assert all(len(set(drawn[group == number])) == 1 for number in numbers)
    assert set(drawn.tolist()) == {0, 1, 2}
    order = np.random.default_rng(seed).permutation(len(ids))
    again = draw_folds([ids[i] for i in order], group[order], 3, str(seed))
    assert np.array_equal(again, drawn[order])


def test_too_few_prompts_for_the_folds_are_an_error(store, tmp_path):
    rows = [{"prompt": f"p{n % 2}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(6)]
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="6 labeled pairs of 2 different prompts, too few for 3"):
        obtain(store, Folds(pairs_of(file_source(file)).all, 3, 1))
    with pytest.raises(UserError, match="at least 2 folds"):
        Folds(LABELED, 1, 1)


def agreement_by_prompt(store, new):
    """With human choices of the pairs that the teacher has not seen, counted by hand."""
    told = pq.read_table(Path(store.path(new), "seen.parquet")).to_pylist()
    unseen = {row["pair_id"] for row in told if row["seen"] == UNSEEN}
    human = dict(zip(*new.labels.part.human_choices(store).to_pydict().values(), strict=True))
    weak = dict(
        zip(
            *read_labels(store, new.labels).select(["pair_id", "choice"]).to_pydict().values(),
            strict=True,
        )
    )
    prompts = dict(
        zip(*new.labels.part.read(store, ["pair_id", "prompt"]).to_pydict().values(), strict=True)
    )
    ids = sorted(unseen)
    assert len({prompts[one] for one in ids}) <= len(ids) / 2
    return clustered_share(
        np.array([float(weak[one] == human[one]) for one in ids]),
        np.array([prompts[one] for one in ids]),
    )


def test_a_verdict_on_real_teachers(store, ray_here, tmp_path):
    # What is to be labeled: new pairs, each with another of its prompt, and ten that the teacher
    # learned from.
    obtain(store, HALVES)
    few = LABELED.read(store).slice(0, 10).to_pylist()
    new = pairs_of(WorldSource(30, seed=5))
    obtain(store, new)
    fresh = new.all.read(store).to_pylist()
    again = [{**row, "response_1": row["response_1"] + "!"} for row in fresh]
    rows = [*few, *fresh, *again]
    file = tmp_path / "many.jsonl"
    columns = ("prompt", "response_1", "response_2")
    written = [{**{c: row[c] for c in columns}, "choice": 1} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in written))
    many, posts = pairs_of(file_source(file)).all, pairs_of(WorldSource(40, domain=POSTS)).all
    teacher = training(0)(HumanLabels(LABELED))
    verdict = Verdict(
        HALVES,
        cross_fitted("opt-45k", 0, HALVES, training(0), [HALF]),
        rivals=(cross_fitted("opt-45k", 1, HALVES, training(1)),),
        elsewhere=(WeakLabels(teacher, posts),),
    )
    record = obtain(store, verdict)["facts"]
    facts = read_facts(store, verdict)
    assert facts.accuracy.value == record["accuracy"]
    assert (facts.pairs, facts.folds, facts.repeats) == (PAIRS, 2, 1)
    assert facts.training_pairs == PAIRS / 2
    assert facts.curve is not None
    assert facts.curve.labels[-1] == facts.training_pairs
    new = NewToTeacher(WeakLabels(teacher, many), LABELED)
    seen = seen_from_json(obtain(store, new)["facts"])
    assert (seen.pairs, seen.same_pair) == (len(rows), 10)
    assert seen.agreement is not None
    unseen = len(rows) - seen.same_pair - seen.same_prompt - seen.near_duplicate
    assert seen.agreement.prompts == unseen
    by_hand = agreement_by_prompt(store, new)
    assert (seen.agreement.low, seen.agreement.high) == pytest.approx((by_hand.low, by_hand.high))
    assert facts.transfer[0].name == "posts:0"
    assert facts.rivals[0].same_model
    # The accuracy is what the labels of the folds say, counted by hand.
    human = dict(zip(*LABELED.human_choices(store).to_pydict().values(), strict=True))
    right = [
        human[pair_id] == choice
        for labels in verdict.teacher.labels
        for pair_id, choice in zip(
            *read_labels(store, labels).select(["pair_id", "choice"]).to_pydict().values(),
            strict=True,
        )
    ]
    assert len(right) == PAIRS
    assert facts.accuracy.value == pytest.approx(np.mean(right))
    table = pq.read_table(Path(store.path(verdict), "pairs.parquet"))
    assert np.mean(table["right"]) == pytest.approx(np.mean(right))
    told = pq.read_table(Path(store.path(new), "seen.parquet"))
    assert told["seen"].to_pylist().count("same pair") == 10
    # The gate lets all labels through, or none.
    labels = read_labels(store, new.labels)
    obtain(store, passed := Gated(new.labels, verdict, 0.01))
    assert read_labels(store, passed).equals(labels)
    with pytest.raises(UserError, match=r"stopped by the gate: opt-45k agrees with .* from 99%"):
        obtain(store, Gated(new.labels, verdict, 0.99))


@pytest.mark.parametrize("at_end", [False, True], ids=["first", "last"])
def test_rows_of_a_group_without_any_pair_are_no_matter(store, tmp_path, at_end):
    rows = [
        {"prompt": f"p{n}", "response_1": f"a {n}", "response_2": f"b {n}", "choice": 1 + n % 2}
        for n in range(2)
    ]
    none = [{**rows[0], "prompt": ""}] * GROUP_ROWS
    file = tmp_path / "rows.jsonl"
    written = [*rows, *none[2:], *none] if at_end else [*none, *rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in written))
    step = NewToTeacher(Known(pairs_of(file_source(file)).all, 3), LABELED)
    obtain(store, step)
    told = pq.read_table(Path(store.path(step), "seen.parquet"))
    assert told["seen"].to_pylist() == [UNSEEN] * 2
