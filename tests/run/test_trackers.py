"""Runs in trackers, read back from what their own libraries wrote."""

import struct
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.run import trackers
from weakteach.run.trackers import TrackerError, Tracking
from weakteach.study.measures import Arm, Measure, Setting

SETTING = Setting("world", "opt-45k", "DPO", "opt-230k", "1/4", "0.1", "with SFT")
RESULTS = {
    "weak/student_accuracy": 0.75,
    "weak/gold_reward/world_exact": 1.5,
    "weak/garbage/world_exact": 0.25,
}


@dataclass(frozen=True)
class Accuracy(Step):
    agreed: int

    def compute(self, workspace):
        return {"agreed": self.agreed, "compared": 4}


@dataclass(frozen=True)
class Reward(Step):
    mean: float

    def compute(self, workspace):
        return {"mean": self.mean, "se": 0.1, "rows": 10, "garbage": 0.25}


def arm(seed):
    def measure(kind, of, step):
        name = type(step).__name__
        return Measure(SETTING, seed, kind, "weak", of, name, step.fingerprint, step)

    accuracy = measure("accuracy", "", Accuracy(3))
    return Arm(SETTING, seed, (accuracy, measure("reward", "world, exact", Reward(1.5 + seed))))


def follow(store, names, arms):
    """What Tune tells its callbacks: the first arm comes to its end, the second is cut short."""
    tracking = Tracking(names, "study", arms, store, Console())
    for place, one in enumerate(arms):
        trial = SimpleNamespace(config={"arm": place})
        tracking.on_trial_start(0, [], trial)
        for count, step in enumerate(one.targets[: 2 - place], 1):
            obtain(store, step)
            tracking.on_trial_result(0, [], trial, {"step": str(step), "steps": count})
        if place == 0:
            tracking.on_trial_complete(0, [], trial)
    tracking.close()


def events(folder):
    """Tag, step and value of every scalar, and the tags of all else, in a folder's event files."""
    scalars, others = [], []
    for file in sorted(Path(folder).glob("events.*")):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    scalars.append((value.tag, event.step, value.simple_value))
                else:
                    others.append((value.tag, value.metadata.SerializeToString()))
    return scalars, others


def tags(folder):
    return {tag.removeprefix("ray/tune/") for tag, _, _ in events(folder)[0]}


def test_tensorboard_holds_progress_settings_and_results_by_arm(tmp_path):
    arms = [arm(0), arm(1)]
    follow(Store(tmp_path), ["tensorboard"], arms)
    folders = sorted((tmp_path / "studies" / "study" / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == [
        f"world_opt-45k_(DPO)_1_4_-_opt-230k_beta_0.1_seed_{seed}" for seed in (0, 1)
    ]
    scalars, others = events(folders[0])
    scalars = [(tag.removeprefix("ray/tune/"), step, value) for tag, step, value in scalars]
    progress = [(step, value) for tag, step, value in scalars if tag == "steps_computed"]
    assert progress == [(1, 1.0), (2, 2.0)]
    last = {tag: value for tag, _, value in scalars if tag != "steps_computed"}
    assert last == pytest.approx(RESULTS)
    assert any(b"opt-230k" in content for _, content in others)
    assert tags(folders[1]) == {"steps_computed", "weak/student_accuracy"}


def test_of_a_study_in_a_bucket_event_files_lie_there_too(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="weakteach"
    )
    url = f"s3://weakteach/w?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    try:
        store = Store(url, lambda key, wait: nullcontext())
        follow(store, ["tensorboard"], [arm(0), arm(1)])
        place = f"{store.root}/studies/study/tensorboard"
        fs.copy_files(place, str(tmp_path / "read"), source_filesystem=store.filesystem)
        with pytest.raises(TrackerError, match="name a server"):
            Tracking(["mlflow"], "study", [arm(0)], store, Console())
    finally:
        server.stop()
    first, second = sorted((tmp_path / "read").iterdir())
    assert tags(first) == {"steps_computed", *RESULTS}
    assert tags(second) == {"steps_computed", "weak/student_accuracy"}


def test_mlflow_keeps_one_run_per_arm_however_often_a_study_is_submitted(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, arms = Store(tmp_path), [arm(0), arm(1)]
    follow(store, ["mlflow"], arms)
    uri = f"sqlite:///{tmp_path}/studies/study/mlflow.db"

    def runs():
        client = MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name("study").experiment_id
        return {run.info.run_name: run for run in client.search_runs([experiment])}

    first = runs()
    assert set(first) == {one.name for one in arms}
    whole, cut = (first[one.name] for one in arms)
    assert (whole.info.status, cut.info.status) == ("FINISHED", "FAILED")
    expected = RESULTS | {"steps_computed": 2, "training_iteration": 2}
    assert whole.data.metrics == pytest.approx(expected)
    assert whole.data.params["student"] == "opt-230k"
    assert whole.data.params["seed"] == "0"
    assert set(whole.data.params) == {*vars(SETTING), "seed"}
    for one in arms:
        obtain_each(store, one.targets)
    Tracking(["mlflow"], "study", arms, store, Console()).close()
    again = runs()
    assert {r.info.run_id for r in again.values()} == {r.info.run_id for r in first.values()}
    assert again[arms[1].name].info.status == "FINISHED"
    assert again[arms[1].name].data.metrics["weak/gold_reward/world_exact"] == 2.5


def test_mlflow_goes_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    follow(Store(tmp_path / "store"), ["mlflow"], [arm(0)])
    assert (tmp_path / "elsewhere.db").exists()
    assert not list(tmp_path.glob("store/studies/study/mlflow*"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9/")
    with pytest.raises(TrackerError, match=r"MLflow at 127\.0\.0\.1 cannot be used") as refused:
        Tracking(["mlflow"], "other", [arm(0)], Store(tmp_path / "store"), Console())
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "store" / "studies" / "other").exists()


def test_studies_of_one_name_in_two_storages_have_runs_of_their_own_in_mlflow(
    tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/server.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mine, other = Store(tmp_path / "mine's"), Store(tmp_path / "other")
    for store in (mine, other, mine):
        follow(store, ["mlflow"], [arm(0)])
    client = MlflowClient(uri, uri)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert {run.info.run_name for run in runs} == {arm(0).name}
    assert sorted(run.data.tags["weakteach.storage"] for run in runs) == [mine.url, other.url]


def test_wandb_offline_keeps_runs_that_can_be_synced(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    follow(Store(tmp_path), ["wandb"], [arm(0), arm(1)])
    kept = list((tmp_path / "studies" / "study" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(kept) == 2
    wanted = {arm(0).name, arm(1).name, "opt-230k", "weak/gold_reward/world_exact"}
    give_up = time.monotonic() + 20  # W&B's own process writes them
    while missing := {text for text in wanted if text.encode() not in _bytes(kept)}:
        assert time.monotonic() < give_up, missing
        time.sleep(0.05)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"kkkkkkkk" not in file.read_bytes(), file


def _bytes(files):
    return b"".join(file.read_bytes() for file in files)


def test_what_a_tracker_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(TrackerError, match="WANDB_API_KEY"):
        Tracking(["wandb"], "study", [], Store(tmp_path), Console())
    with pytest.raises(TrackerError, match=r"needs no_such_module: pip install 'weakteach\["):
        trackers.require("mlflow", "json", "no_such_module")


def test_a_tracker_that_fails_on_the_way_does_not_end_the_study(tmp_path, capsys):
    store = Store(tmp_path)
    tracking = Tracking(["tensorboard"], "study", [arm(0)], store, Console())
    (tmp_path / "studies" / "study" / "tensorboard").write_text("in the way")
    trial = SimpleNamespace(config={"arm": 0})
    tracking.on_trial_start(0, [], trial)
    tracking.on_trial_complete(0, [], trial)
    assert "--tracker tensorboard failed (NotADirectoryError)" in capsys.readouterr().out
