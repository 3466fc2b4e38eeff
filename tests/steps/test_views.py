"""Views of label tables: which rows they keep, how many they flip, what they refuse."""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import label_table
from weakteach.labeling.derived import (
    flipped_like,
    matched,
    mismatched,
    together,
    top_margin,
    voted,
)
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.pair import CHOICE_SCHEMA, DataError
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Labels, Pairs, Part, Split, read_labels
from weakteach.steps.evaluation import LabelGold
from weakteach.steps.labels import HumanLabels
from weakteach.steps.views import Claimed, Ensemble, Matched, Mismatched, RandomFlips, TopMargin

# For each of some pairs: the weak margin, the human choice (0: none), a place in the file.
LABELED = st.lists(
    st.tuples(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0]), st.sampled_from([1, 2, 0])),
    min_size=1,
    max_size=30,
)
ORDERS = st.randoms(use_true_random=False)


def tables(rows, order=None):
    """The weak labels and the human choices, in the order of the ids or in another."""
    ids = [f"{i:03d}" for i in range(len(rows))]
    weak = label_table(ids, np.array([[margin, 0.0] for margin, _ in rows]))
    human = [(i, choice) for i, (_, choice) in zip(ids, rows, strict=True) if choice]
    columns = [list(column) for column in zip(*human, strict=True)] or [[], []]
    both = [weak, pa.table(columns, CHOICE_SCHEMA)]
    if order:
        shuffled = [order.sample(range(len(table)), len(table)) for table in both]
        both = [t.take(pa.array(rows, pa.int64())) for t, rows in zip(both, shuffled, strict=True)]
    return both


def by_id(table):
    ids = table["pair_id"].to_pylist()
    assert ids == sorted(set(ids))
    return dict(zip(ids, table.to_pylist(), strict=True))


@settings(deadline=None)
@given(LABELED, ORDERS)
def test_matched_and_mismatched_part_the_labels_that_a_human_knows(rows, order):
    labels, choices = (by_id(table) for table in tables(rows))
    shuffled = tables(rows, order)
    agree, differ = by_id(matched(*shuffled)), by_id(mismatched(*shuffled))
    assert not agree.keys() & differ.keys()
    assert {**agree, **differ} == {i: labels[i] for i in choices}
    assert all(row["choice"] == choices[i]["choice"] for i, row in agree.items())


@settings(deadline=None)
@given(LABELED, st.fractions(Fraction(1, 50), 1), ORDERS)
def test_the_largest_margins_are_kept_and_of_equal_ones_the_smaller_id(rows, share, order):
    labels = by_id(tables(rows)[0])
    by_margin = sorted(labels, key=lambda i: (-abs(labels[i]["margin"]), i))
    wanted = by_margin[: max(1, round(share * len(rows)))]
    kept = by_id(top_margin(tables(rows, order)[0], share))
    assert kept == {i: labels[i] for i in sorted(wanted)}


@settings(deadline=None)
@given(LABELED, st.integers(0, 3), ORDERS)
def test_flips_are_as_many_as_the_weak_errors_whatever_the_order_of_the_rows(rows, seed, order):
    weak, human = tables(rows)
    noisy, errors = flipped_like(human, weak, seed)
    assert by_id(noisy).keys() == by_id(human).keys()
    assert len(mismatched(noisy, human)) == len(mismatched(weak, human)) == errors
    weak, human = tables(rows, order)
    assert flipped_like(human, weak, seed)[0].equals(noisy)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 3))
def test_which_choices_are_flipped_does_not_depend_on_what_they_are(pairs, seed):
    margins = [2.0 if i % 3 else -2.0 for i in range(pairs)]
    drawn = []
    for weak, human in (tables([(m, 1) for m in margins]), tables([(-m, 2) for m in margins])):
        noisy, _ = flipped_like(human, weak, seed)
        drawn.append(mismatched(noisy, human)["pair_id"])
    assert drawn[0] == drawn[1]


def test_every_pair_is_flipped_about_equally_often_over_seeds():
    weak, human = tables([(1.0, 2 if i % 4 == 0 else 1) for i in range(40)])  # 10 weak errors
    counts = Counter(
        pair_id
        for seed in range(200)
        for pair_id in mismatched(flipped_like(human, weak, seed)[0], human)["pair_id"].to_pylist()
    )
    assert counts.total() == 2000
    assert len(counts) == 40
    assert 25 < min(counts.values()) < max(counts.values()) < 75  # 50 ± 6.1 each


@dataclass(frozen=True)
class LongerWins(Labels):
    """Labels with rewards that often err against the human ones: the length of a response."""

    part: Part

    def compute(self, workspace):
        pairs = self.part.read(workspace.store)
        lengths = [pc.utf8_length(pairs[name]) for name in ("response_1", "response_2")]
        labels = label_table(pairs["pair_id"].to_pylist(), np.stack(lengths, axis=1).astype(float))
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {"rows": len(labels)}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A store and a split of the world's pairs."""
    store, model = Store(tmp_path_factory.mktemp("store")), find_model("opt-45k")
    held_out = HeldOut(Pairs(WorldSource(240), (tokenizer_of(model),)), test_pairs=20)
    return store, Split(held_out, Fraction(1, 4), seed=0)


def test_view_steps_write_what_the_tables_say(study):
    store, split = study
    labels, human = LongerWins(split.unlabeled), HumanLabels(split.unlabeled)
    flips = RandomFlips(human, labels, seed=0)
    steps = [Matched(labels, human), Mismatched(labels, human), TopMargin(labels, Fraction(1, 3))]
    steps += [flips, Matched(flips, human), Mismatched(flips, human)]
    records = obtain_each(store, steps, Resources())
    agree, differ, top, noisy, flips_agree, flips_differ = (read_labels(store, s) for s in steps)
    whole = read_labels(store, labels)
    assert len(agree) + len(differ) == len(whole)
    assert agree.schema.equals(whole.schema)
    assert len(top) == round(len(whole) / 3)
    assert records[flips]["facts"] == {"rows": len(whole), "flipped": len(differ)}
    assert (len(flips_agree), len(flips_differ)) == (len(agree), len(differ))
    assert flips_differ["pair_id"] != differ["pair_id"]
    assert all(step.part == split.unlabeled for step in steps)
    assert noisy.schema.equals(CHOICE_SCHEMA)
    for step in steps:
        assert records[step]["facts"]["rows"] == len(read_labels(store, step))


def test_gold_rewards_of_chosen_and_rejected_are_read_by_the_label(study):
    store, split = study
    gold, human = LongerWins(split.unlabeled), HumanLabels(split.unlabeled)
    steps = [LabelGold(labels, gold) for labels in (human, Matched(gold, human), gold)]
    records = obtain_each(store, steps)
    rewards, choices = (read_labels(store, s).to_pandas() for s in (gold, human))
    both = rewards.merge(choices, on="pair_id", suffixes=("_gold", "_human"))
    larger = both[["reward_1", "reward_2"]].max(axis=1)
    smaller = both[["reward_1", "reward_2"]].min(axis=1)
    agree = both["choice_gold"] == both["choice_human"]
    facts = [records[step]["facts"] for step in steps]
    assert facts[0]["chosen"] == pytest.approx(larger.where(agree, smaller).mean())
    assert facts[0]["rejected"] == pytest.approx(smaller.where(agree, larger).mean())
    assert facts[1]["chosen"] == pytest.approx(larger[agree].mean())
    assert facts[1]["rows"] == agree.sum()
    assert facts[2]["chosen"] == pytest.approx(larger.mean())
    assert facts[2]["gold_sides"] == (larger > smaller).sum()
    with pytest.raises(DataError, match="has a gold reward"):
        obtain(store, LabelGold(HumanLabels(split.labeled), gold))


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (
            lambda human: Mismatched(human, human),
            "^no pair on which weak and human labels differ: nothing to train on$",
        ),
        (lambda human: TopMargin(human, Fraction(1, 2)), "only labels by reward have margins"),
    ],
)
def test_a_view_without_rows_or_meaning_is_refused(study, view, reason):
    store, split = study
    with pytest.raises(DataError, match=reason):
        obtain(store, view(HumanLabels(split.labeled)))


def test_views_of_nothing_are_refused_before_anything_runs(study):
    _, split = study
    with pytest.raises(DataError, match="not above 0"):
        TopMargin(HumanLabels(split.labeled), Fraction(0))


def test_the_vote_of_teachers_is_weighted_by_how_far_they_agree():
    def of(choices):
        margins = [[1.0, 0.0] if choice == 1 else [0.0, 1.0] for choice in choices.values()]
        return label_table(list(choices), np.array(margins))

    tables = [
        of({"a": 1, "b": 1, "c": 2, "d": 1, "e": 1}),
        of({"d": 2, "c": 2, "b": 1, "a": 1}),
        of({"a": 1, "b": 2, "c": 2, "d": 2}),
        of({"a": 1, "b": 1, "c": 1, "d": 1}),
    ]
    found = by_id(voted(tables))
    assert {key: (row["choice"], row["weight"]) for key, row in found.items()} == {
        "a": (1, 1.0),
        "b": (1, 0.5),
        "c": (2, 0.5),
        "d": (2, 0.0),  # a tie; one teacher could not label e
    }
    assert all(row["confidence"] == row["weight"] for row in found.values())


def test_votes_and_claims_are_written_and_refused(study):
    store, split = study
    labels = LongerWins(split.unlabeled)
    claimed, vote = Claimed(labels), Ensemble((labels, HumanLabels(split.unlabeled)))
    records = obtain_each(store, [claimed, vote])
    table, voted_ = read_labels(store, claimed), read_labels(store, vote)
    margin = np.abs(table["margin"].to_numpy())
    assert table["probability"].to_numpy() == pytest.approx(1 / (1 + np.exp(-margin)))
    whole, human = (read_labels(store, one) for one in vote.members)
    agreed = len(matched(whole, human))
    assert records[vote]["facts"] == {"rows": len(whole), "agreed": agreed}
    assert voted_["weight"].to_numpy().sum() == agreed
    assert vote.part == claimed.part == split.unlabeled
    with pytest.raises(DataError, match="two teachers at least"):
        Ensemble((labels,))
    with pytest.raises(DataError, match="of one part"):
        Ensemble((labels, LongerWins(split.labeled)))


def test_human_and_weak_labels_stand_together_by_pair():
    human = pa.table([["b", "d"], [2, 1]], schema=CHOICE_SCHEMA)
    weak = label_table(["c", "a"], np.array([[1.0, 0.0], [0.0, 1.0]]))
    found = {row["pair_id"]: row["choice"] for row in together(human, weak).to_pylist()}
    assert found == {"a": 2, "b": 2, "c": 1, "d": 1}
    with pytest.raises(DataError, match="1 pairs have both a human and a weak label"):
        together(human, label_table(["b"], np.array([[1.0, 0.0]])))
