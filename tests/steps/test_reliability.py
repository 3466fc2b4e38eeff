"""What the labels of teachers are worth beside their accuracy, from labels that are known."""

import json
from dataclasses import dataclass

import judged_teachers
import numpy as np
import pyarrow.parquet as pq
import pytest

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.evaluation.teaching import to_json
from weakteach.labeling.annotators import label_table
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.pair import DataError
from weakteach.preferences.sources import WorldSource, data_source
from weakteach.results.table import numbers_of
from weakteach.steps.data import HeldOut, Labels, Pairs, Part
from weakteach.steps.evaluation import Agreement
from weakteach.steps.teachers import Alike, Reliability

PAIRS = Pairs(WorldSource(60), (tokenizer_of(find_model("opt-45k")),))
TEST = HeldOut(PAIRS, 20).test


@dataclass(frozen=True)
class Known(Labels):
    """Labels that differ from the human ones at every ``nth`` pair, with a margin of 2."""

    part: Part
    nth: int

    def compute(self, workspace):
        human = self.part.human_choices(workspace.store)
        ids, choices = human["pair_id"].to_pylist(), human["choice"].to_numpy()
        sign = np.where(choices == 1, 1.0, -1.0)
        sign[:: self.nth] *= -1
        labels = label_table(ids, np.stack([2 * sign, np.zeros(len(ids))], axis=1))
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {"rows": len(labels)}


@dataclass(frozen=True)
class KnownVerdict(Step):
    temperature: float

    def compute(self, workspace):
        facts = judged_teachers.facts(judged_teachers.judged(200))
        text = json.dumps({**to_json(facts), "temperature": self.temperature})
        (workspace.out / "verdict.json").write_text(text)
        return {}


@dataclass(frozen=True)
class NoLabels(Labels):
    part: Part

    def compute(self, workspace):
        table = label_table([], np.empty((0, 2)))
        pq.write_table(table, workspace.out / "labels.parquet")
        return {}


def test_reliability_is_that_of_what_is_claimed_and_of_what_is_left_after_scaling(tmp_path):
    store = Store(tmp_path)
    step = Reliability(Known(TEST, 4), KnownVerdict(2.0))
    facts = obtain(store, step)["facts"]
    claimed, scaled = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))
    assert (facts["compared"], facts["temperature"]) == (20, 2.0)
    assert facts["ece_claimed"] == pytest.approx(claimed - 0.75)
    assert facts["ece_scaled"] == pytest.approx(0.75 - scaled)
    assert facts["brier_scaled"] == pytest.approx(0.75 * (1 - scaled) ** 2 + 0.25 * scaled**2)
    table = pq.read_table(f"{store.path(step)}/reliability.parquet")
    assert table["right"].to_pylist() == ([0.0, 1.0, 1.0, 1.0] * 5)
    assert table["claimed"].to_pylist() == pytest.approx([claimed] * 20)


def test_teachers_label_alike_where_both_choose_the_same(tmp_path):
    store = Store(tmp_path)
    step = Alike(Known(TEST, 4), Known(TEST, 2))  # which differ at 2, 6, 10, ...
    facts = obtain(store, step)["facts"]
    assert (facts["compared"], facts["alike"]) == (20, 15)
    assert facts["kappa"] < 0.75
    told = {name: error for name, _, error, _ in numbers_of("alike", facts)}
    # As if both chose each response as often: √(0.75·0.25/20)/0.5.
    assert told["kappa"] == facts["kappa_se"] == pytest.approx(0.19, abs=0.03)
    alike = pq.read_table(f"{store.path(step)}/alike.parquet")["alike"].to_pylist()
    assert alike == [1.0, 1.0, 0.0, 1.0] * 5
    assert obtain(store, Alike(Known(TEST, 4), Known(TEST, 4)))["facts"]["kappa"] == 1


@dataclass(frozen=True)
class RightOn(Labels):
    """Labels that are the human ones at the prompts of these numbers, and the others elsewhere."""

    part: Part
    prompts: tuple[int, ...]

    def compute(self, workspace):
        pairs = self.part.read(workspace.store, ["pair_id", "prompt"])
        human = self.part.human_choices(workspace.store).join(pairs, "pair_id").sort_by("pair_id")
        number = np.array([int(text.split()[-1]) for text in human["prompt"].to_pylist()])
        right = np.isin(number, self.prompts)
        sign = np.where(right == (human["choice"].to_numpy() == 1), 2.0, -2.0)
        margins = np.stack([sign, np.zeros(len(sign))], axis=1)
        labels = label_table(human["pair_id"].to_pylist(), margins)
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {"rows": len(labels)}


def test_standard_errors_of_pairs_are_those_of_their_prompts(tmp_path):
    """10 prompts with 8 pairs each, which are all right or all wrong, as often as 10 pairs are."""
    rows = [
        {
            "prompt": f"Question {n}",
            "response_1": f"a{k}",
            "response_2": f"b{k}",
            "choice": 1 + k % 2,
        }
        for n in range(10)
        for k in range(8)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = tokenizer_of(find_model("opt-45k"))
    part = Pairs(data_source(str(file)), (tokenizer,)).all
    store = Store(tmp_path / "store")
    weak, gold = (RightOn(part, kept) for kept in (tuple(range(7)), (0, 1, 2, 3, 7, 8)))
    facts = obtain(store, Agreement(weak, gold))["facts"]
    told = {name: (value, error) for name, value, error, _ in numbers_of("agreement", facts)}
    # Weak is wrong at the prompts 7 to 9, gold at 4 to 6 and 9.
    for name, p, prompts in (
        ("agreement", 0.7, 10), ("agreement_gold", 0.5, 10), ("gold_with_weak", 1 / 3, 3),
    ):  # fmt: skip
        assert told[name] == pytest.approx((p, np.sqrt(p * (1 - p) / prompts)))
    facts = obtain(store, Alike(weak, gold))["facts"]
    told = {name: (value, error) for name, value, error, _ in numbers_of("alike", facts)}
    assert told["alike"] == pytest.approx((0.5, np.sqrt(0.25 / 10)))
    # As if both chose each response as often: √(0.5·0.5/10)/0.5, and of 80 prompts 0.11.
    assert told["kappa"] == pytest.approx((0.0, 0.316), abs=0.03)


def test_labels_of_nothing_are_refused(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(DataError, match="No pair of the test part has a human choice"):
        obtain(store, Reliability(NoLabels(TEST), KnownVerdict(1.0)))
    with pytest.raises(DataError, match="labeled no pair in common"):
        obtain(store, Alike(NoLabels(TEST), Known(TEST, 2)))
