"""Outcomes of ``weakteach label`` from the files of its user to those that it writes, by teachers
whose labels are known: what trains and what labels is replaced, and nothing else."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weakteach.labeling.annotators import label_table
from weakteach.models.spec import Model
from weakteach.run import cluster
from weakteach.steps.labels import WeakLabels
from weakteach.steps.training import Dpo, Sft

LABELED, UNLABELED = 400, 150
# How often labels are right whose rank by margin is so high, by the model of the teacher.
RIGHT = {
    "opt-45k": lambda rank: np.where(rank > 0.7, 0.9, 0.4),  # 55 % of all
    "opt-230k": lambda rank: np.full_like(rank, 0.75),
    "opt-1m": lambda rank: np.full_like(rank, 0.5),
}


def drawn(pair_ids, what):
    """A number in [0, 1) for each pair."""
    digests = (hashlib.sha256(f"{what} {one}".encode()).digest() for one in pair_ids)
    return np.array([int.from_bytes(one[:6]) / 2**48 for one in digests])


def model_of(policy):
    return policy if isinstance(policy, Model) else model_of(policy.start)


def known_labels(self, workspace):
    """A label for each pair, right as often as RIGHT says; margins grow with their rank."""
    store, name = workspace.store, model_of(self.teacher).label
    choices = self.part.human_choices(store)
    of = dict(zip(choices["pair_id"].to_pylist(), choices["choice"].to_pylist(), strict=True))
    ids = self.part.read(store, ["pair_id"])["pair_id"].to_pylist()
    chosen = np.array([of.get(one, 1) for one in ids])
    rank = drawn(ids, "rank")
    right = drawn(ids, f"right {name}") < RIGHT[name](rank)
    margin = np.where(right == (chosen == 1), 1, -1) * (0.01 + 3 * rank)
    labels = label_table(ids, np.stack([margin, np.zeros(len(ids))], axis=1))
    pq.write_table(labels, workspace.out / "labels.parquet")
    counts = {"rows": len(labels), "quarantined": 0, "devices": 1}
    nothing = pa.table({"pair_id": pa.array([], pa.string()), "reason": pa.array([], pa.string())})
    pq.write_table(nothing, workspace.out / "quarantine.parquet")
    return counts


@pytest.fixture
def label(here, tmp_path, monkeypatch):
    """Runs the command on such teachers; its exit code, output and verdict."""
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    assert here("world", LABELED, "--out", few)[0] == 0
    assert here("world", UNLABELED, "--start", LABELED, "--out", many)[0] == 0
    monkeypatch.setattr(cluster, "start_ray", lambda *_: cluster.Joined(by_address=False))
    monkeypatch.setattr(cluster, "what_waits", lambda *_: [])
    monkeypatch.setattr(cluster, "nodes_now", list)
    for kind in (Sft, Dpo):
        monkeypatch.setattr(kind, "compute", lambda self, workspace: {"pairs": 1})
    monkeypatch.setattr(WeakLabels, "compute", known_labels)

    def command(*options):
        code, out, err = here(
            *("label", "--labeled", few, "--unlabeled", many, "--storage", tmp_path / "store"),
            *("--out", tmp_path / "out", "--overwrite", "--curve", 0, "--other-seeds", 0),
            *options,
        )
        assert code in (0, 3), out + err
        return code, out, json.loads((tmp_path / "out/verdict.json").read_text()), tmp_path / "out"

    return command


def test_the_confident_part_is_what_the_preferences_hold(label):
    code, out, verdict, folder = label("--teacher", "opt-45k")
    assert code == 0, out
    advice = verdict["advice"]
    assert (advice["kind"], advice["told"]) == ("confident", False)
    assert advice["sentence"].startswith("Use the confident part: ")
    assert out.splitlines()[-1] == advice["sentence"]
    assert 0.3 <= advice["share"] <= 0.7
    assert advice["labels"] == round(advice["share"] * UNLABELED)
    labels = pq.read_table(folder / "labels.parquet").to_pandas()
    kept = pq.read_table(folder / "preferences.parquet").to_pandas()
    assert len(labels) == UNLABELED
    assert len(kept) == advice["labels"]
    left_out = labels[~labels["pair_id"].isin(kept["pair_id"])]
    assert "RewardTrainer` would subtract `margin`" in (folder / "README.md").read_text()
    assert kept["margin"].abs().min() > left_out["margin"].abs().max()
    # Without the gate all of them are kept.
    label("--teacher", "opt-45k", "--no-gate")
    assert pq.read_metadata(folder / "preferences.parquet").num_rows == UNLABELED


def test_a_rival_that_is_better_is_named_and_nothing_is_labeled(label):
    code, out, verdict, folder = label("--teacher", "opt-1m", "--rivals", "opt-45k,opt-230k")
    assert code == 3, out
    advice, rivals = verdict["advice"], verdict["facts"]["rivals"]
    assert (advice["kind"], advice["instead"]) == ("other", "opt-230k")
    assert "opt-230k reached 7" in advice["sentence"]
    assert advice["sentence"].endswith("Try opt-230k.")
    assert out.splitlines()[-1] == advice["sentence"]
    assert [one["name"] for one in rivals] == ["opt-45k", "opt-230k"]
    better = rivals[1]
    assert better["accuracy"]["value"] == pytest.approx(0.75, abs=0.06)
    assert better["behind"]["high"] < 0 < better["agreement"]["value"] < 1
    assert not any(one["same_model"] for one in rivals)
    assert "opt-230k" in (folder / "report.html").read_text()
    assert not (folder / "labels.parquet").exists()


@pytest.mark.parametrize(("teacher", "exit_code"), [("opt-230k", 0), ("opt-1m", 3)])
def test_with_nothing_to_ask_about_the_verdict_and_the_report_are_written(
    label, tmp_path, teacher, exit_code
):
    """As where the pairs to label have the prompts of the labeled ones."""
    rows = list(map(json.loads, (tmp_path / "few.jsonl").read_text().splitlines()))
    again = [
        {"prompt": row["prompt"], "response_1": row["chosen"], "response_2": "Something else."}
        for row in rows
    ]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in again))
    code, out, verdict, folder = label("--teacher", teacher, "--ask-humans", 5)
    assert code == exit_code, out
    assert "Nothing to ask humans about: each pair of many.jsonl has a human choice, or" in out
    assert out.splitlines()[-1] == verdict["advice"]["sentence"]
    assert verdict["asked"] == 0
    assert (folder / "report.html").exists()
    assert not list(folder.glob("asked*"))


def test_another_domain_or_accuracy_is_another_run_whose_verdict_stays(label, here, tmp_path):
    """What the verdict is of tells runs apart: else one would replace the files of the other, and
    ``gc`` would drop what it was made of."""
    posts = tmp_path / "posts.jsonl"
    assert here("world", 40, "--domain", "posts", "--out", posts)[0] == 0
    runs = []
    for options in ((), ("--wanted-accuracy", 0.8), ("--elsewhere", posts)):
        _, _, verdict, folder = label("--teacher", "opt-230k", *options)
        runs.append((folder / "run.json").read_text())
    assert len(set(runs)) == 3
    assert verdict["facts"]["transfer"][0]["name"] == "posts.jsonl"
    held = [json.loads(file.read_text()) for file in tmp_path.glob("store/studies/*/study.json")]
    verdicts = {tuple(one) for study in held for one in study["steps"] if one[0] == "Verdict"}
    assert len(held) == len(verdicts) == 3
