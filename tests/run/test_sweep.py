"""The sweep as its user runs it: a process, its output, its exit code, its files."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from weakteach.artifacts.store import Store
from weakteach.models.tiny.family import base_folder
from weakteach.results.table import RESULTS_SCHEMA
from weakteach.run.garbage import find_garbage
from weakteach.study.manifest import read_manifest

ROOT = Path(__file__).parents[2]
SMALL = [
    "--data", "world:160", "--test-pairs", "32", "--student", "opt-45k", "--seeds", "0",
    "--controls", "all",
]  # fmt: skip


def command(storage, *options):
    return [sys.executable, "sweeps/size_grid.py", "--storage", str(storage), *options]


def sweep(storage, *options, **environment):
    run = subprocess.run(
        command(storage, *options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    return run.returncode, run.stdout, run.stderr


def read(record):
    return json.loads(record.read_text())


def results_of(storage):
    return pq.read_table(Path(storage, "studies", "size_grid", "results.parquet"))


@pytest.fixture(scope="module")
def broken_model(tmp_path_factory):
    """A model folder whose weights are NaN: training on it cannot succeed."""
    folder = tmp_path_factory.mktemp("models") / "broken"
    shutil.copytree(base_folder("opt-45k"), folder)
    weights = load_file(folder / "model.safetensors")
    nan = {name: torch.full_like(weight, float("nan")) for name, weight in weights.items()}
    save_file(nan, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, broken_model):
    """A study of two arms, the second of which has a teacher that cannot be trained."""
    storage = tmp_path_factory.mktemp("storage")
    weak = f"opt-45k,{broken_model}"
    options = ["--weak", weak, "--fractions", "1/2", "--label-price", "0.25", "--drop-sft"]
    return storage, weak, sweep(storage, *SMALL, *options)


ROLES = [
    "base", "sft", "human", "human_all", "human_few", "gold", "random", "weak", "few_long", "both",
]  # fmt: skip


def numbers(storage, weak):
    """Of the students; how far the gold agrees with humans is of no arm."""
    frame = results_of(storage).to_pandas()
    frame = frame[frame["measure"] != "gold_accuracy"]
    return frame.loc[frame["weak"] == weak].set_index(["role", "measure"])


@pytest.mark.slow
@pytest.mark.ci
def test_the_price_of_a_human_label_is_kept_for_the_report(finished):
    storage, _, _ = finished
    assert read_manifest(Store(storage), "size_grid").info.label_price == 0.25


@pytest.mark.slow
@pytest.mark.ci
def test_every_role_of_a_sound_arm_has_numbers_with_documented_columns(finished):
    storage, _, _ = finished
    results = results_of(storage)
    assert results.schema.equals(RESULTS_SCHEMA, check_metadata=True)
    assert all(b"doc" in field.metadata for field in results.schema)
    rows = numbers(storage, "opt-45k")
    assert list(dict.fromkeys(role for role, _ in rows.index)) == ROLES
    assert (rows["status"] == "done").all()
    assert rows.xs("gold_reward", level="measure")["value"].notna().all()
    shares = ["agreement", "teacher_accuracy", "teacher_accuracy_gold", "gold_with_weak"]
    assert rows.loc["weak"].loc[shares, "value"].between(0, 1).all()


@pytest.mark.slow
@pytest.mark.ci
def test_numbers_are_those_of_the_artifacts_recomputed_with_pandas(finished):
    storage, _, _ = finished
    rows = numbers(storage, "opt-45k")
    rewards = {}
    for role in ROLES:
        row = rows.loc[(role, "gold_reward")]
        folder = Path(storage, "GoldReward", row["fingerprint"])
        rewards[role] = pd.read_parquet(folder / "rewards.parquet").set_index("prompt_id")["reward"]
        assert row["value"] == pytest.approx(rewards[role].mean())
        assert row["se"] == pytest.approx(rewards[role].sem())
        assert row["n"] == len(rewards[role])
    page = Path(storage, "studies", "size_grid", "report.html").read_text()
    difference = (rewards["weak"] - rewards["human"]).mean()
    assert f"{abs(difference):.2f}" in page
    split = next(Path(storage, "Split").glob("[0-9a-f]*"))
    unlabeled = pd.read_parquet(split / "unlabeled.parquet")
    human = pd.read_parquet(split / "choices.parquet")
    seen = 0
    for folder in Path(storage, "WeakLabels").glob("[0-9a-f]*"):
        labels = pd.read_parquet(folder / "labels.parquet")
        if set(labels["pair_id"]) == set(unlabeled["pair_id"]):
            both = labels.merge(human, on="pair_id", suffixes=("_weak", "_human"))
            agreement = (both["choice_weak"] == both["choice_human"]).mean()
            assert rows.loc[("weak", "agreement"), "value"] == pytest.approx(agreement)
            assert rows.loc[("weak", "agreement"), "n"] == len(both)
            seen += 1
    assert seen == 1


@pytest.mark.slow
@pytest.mark.ci
def test_a_manifest_names_all_that_its_artifacts_were_made_of(finished):
    storage, _, _ = finished
    manifest = json.loads(Path(storage, "studies", "size_grid", "study.json").read_text())
    named = {tuple(step) for step in manifest["steps"]}
    for record in Path(storage).glob("*/[0-9a-f]*/record.json"):
        made_of = json.loads(record.read_text())["inputs"]
        assert {(parent["step"], parent["fingerprint"]) for parent in made_of} <= named
    assert find_garbage(Store(storage)).items == ()


@pytest.mark.slow
@pytest.mark.ci
def test_a_failed_arm_is_rows_with_a_reason_and_the_others_go_on(finished):
    storage, _, (code, out, err) = finished
    rows = numbers(storage, "broken")
    assert code == 1
    assert (rows["status"] == "failed").all()
    assert rows["error"].str.contains("lower the learning rate").all()
    assert "failed: " in out
    assert "Traceback" not in out + err
    page = Path(storage, "studies", "size_grid", "report.html").read_text()
    assert "lower the learning rate" in page


@pytest.mark.slow
@pytest.mark.ci
def test_sft_models_that_are_done_with_are_dropped_and_their_records_told(finished):
    storage, _, (_, out, _) = finished
    tuned = list(Path(storage).glob("Sft/[0-9a-f]*"))
    assert f"{len(tuned)} SFT models were dropped" in out
    assert not list(Path(storage).glob("Sft/**/*.safetensors"))
    assert list(Path(storage).glob("Dpo/**/*.safetensors"))
    page = Path(storage, "studies", "size_grid", "report.html").read_text()
    assert "Sft of opt-45k" in page


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_whose_steps_another_has_computed_computes_nothing(finished):
    storage, _, _ = finished
    sound = [*SMALL, "--weak", "opt-45k", "--fractions", "1/2"]
    before = results_of(storage).filter(pc.field("weak") == "opt-45k").drop(["experiments"])
    code, out, _ = sweep(storage, *sound)
    assert code == 0
    assert "0 steps computed" in out
    assert results_of(storage).drop(["experiments"]).equals(before)


def test_a_plan_runs_nothing_and_needs_no_hub(tmp_path):
    code, out, err = sweep(tmp_path / "store", "--preset", "paper", "--plan", HF_HUB_OFFLINE="1")
    assert code == 0, err
    assert "60 arms" in out
    assert "A100-hours" in out
    assert not list((tmp_path / "store").glob("*/*"))


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_results_of_an_undisturbed_one(tmp_path):
    options = [*SMALL, "--weak", "opt-45k", "--fractions", "1/4,1/2"]
    assert sweep(tmp_path / "whole", *options)[0] == 0
    killed = subprocess.Popen(
        command(tmp_path / "killed", *options), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "killed").glob("Dpo/[0-9a-f]*/record.json"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    records = list((tmp_path / "killed").glob("*/[0-9a-f]*/record.json"))
    written = {record: record.stat().st_mtime_ns for record in records}
    assert sweep(tmp_path / "killed", *options)[0] == 0
    assert {record: record.stat().st_mtime_ns for record in records} == written
    assert results_of(tmp_path / "killed").equals(results_of(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.ci
def test_a_terminated_sweep_ends_as_an_interrupted_one_does(ray_address, tmp_path):
    options = [*SMALL, "--weak", "opt-45k", "--fractions", "1/2"]
    run = subprocess.Popen(
        command(tmp_path, *options), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_ADDRESS": ray_address},
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("Split/[0-9a-f]*/record.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.terminate()
    out, _ = run.communicate(timeout=100)
    assert run.returncode == 143, out
    assert "The same command goes on from here." in out
    assert "Traceback" not in out
    assert (tmp_path / "studies" / "size_grid" / "report.html").exists()
    assert "pending" in results_of(tmp_path)["status"].to_pylist()


@pytest.mark.slow
def test_a_study_in_rounds_goes_on_to_more_seeds_and_computes_no_other(ray_address, tmp_path):
    """One round, a second one with a larger --max-seeds, and nothing the third time."""
    options = [
        "--data", "world:96", "--test-pairs", "16", "--samples", "1", "--weak", "opt-45k",
        "--student", "opt-45k", "--fractions", "1/4", "--decide", "--max-seeds",
    ]  # fmt: skip
    records, told = [set()], []
    for most in ("2", "4", "4"):
        code, out, err = sweep(tmp_path, *options, most, RAY_ADDRESS=ray_address)
        assert code == 0, err
        found = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/[0-9a-f]*/record.json")}
        new = set(found.items()) - records[-1]
        assert records[-1] <= set(found.items())
        assert f"{len(new)} steps computed." in out
        records.append(set(found.items()))
        told.append(out)
    assert "Round 1 of 1, seeds 10 to 11 (2 in all)" in told[0]
    assert "Round 2 of 2, seeds 12 to 13 (4 in all)" in told[1]
    seeds = [
        {read(path)["parameters"]["seed"] for path, _ in later - earlier if "Split" in path.parts}
        for earlier, later in itertools.pairwise(records)
    ]
    assert seeds == [{10, 11}, {12, 13}, set()]
    rows = results_of(tmp_path)
    assert set(rows["seed"].to_pylist()) == {10, 11, 12, 13}
    assert set(rows["status"].to_pylist()) == {"done"}
    for out in told[1:]:
        assert "in round 2 of 4 seeds" in " ".join(out.split())


@pytest.mark.slow
def test_a_reward_model_without_a_head_is_refused_and_what_was_computed_stays(tmp_path):
    options = [*SMALL, "--weak", "opt-45k", "--fractions", "1/2", "--gold", "opt-45k"]
    code, out, _ = sweep(tmp_path, *options)
    assert code == 1
    assert "is no reward model: it has no trained head" in out
    assert list(tmp_path.glob("Dpo/[0-9a-f]*/record.json"))


@pytest.mark.slow
def test_a_fraction_that_leaves_no_pair_on_one_side_says_so(ray_address, tmp_path):
    small = ["159" if option == "32" else option for option in SMALL]  # test pairs
    options = [*small, "--weak", "opt-45k", "--fractions", "999/1000"]
    code, out, _ = sweep(tmp_path, *options, RAY_ADDRESS=ray_address)
    assert code == 1
    assert "part would be empty" in " ".join(out.split())
