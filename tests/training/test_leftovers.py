"""Checkpoints that an earlier try left on a host: what goes on from them, and what does not."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray.train
from filelock import FileLock

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import Sft, run_training
from weakteach.training.local import own_folder
from weakteach.training.recipes import Schedule, SftRecipe
from weakteach.training.sft import train_sft

UPDATES = 12


def leave(run_folder, *files):
    folder = Path(run_folder, "checkpoint-4")
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("{}")
    return folder


def as_a_worker_of_a_group(config):
    """Here, where another group's worker had got to an update that Ray Train has no checkpoint of.
    A trainer that began from it would fail, as it holds no model."""
    job = config["job"]
    left = leave(job.run_folder, "trainer_state.json")
    job = replace(job, resources=replace(job.resources, train_workers=1))
    facts = train_sft({"job": job})
    assert not left.exists()
    return facts


def in_the_trial(config):
    """Where the try before was killed while it wrote a checkpoint."""
    leave(config["job"].run_folder, "optimizer.pt")
    return train_sft(config)


@dataclass(frozen=True)
class OfAGroup(Sft):
    def compute(self, workspace):
        return run_training(self, as_a_worker_of_a_group, workspace)


@dataclass(frozen=True)
class OfATrial(Sft):
    def compute(self, workspace):
        return run_training(self, in_the_trial, workspace)


@pytest.mark.parametrize("kind", [OfAGroup, OfATrial])
def test_training_does_not_begin_from_what_is_not_whole_or_of_another_group(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setenv("WEAKTEACH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: None)
    labels = HumanLabels(Pairs(WorldSource(48), (tokenizer_of(find_model("opt-45k")),)).all)
    recipe = SftRecipe(Schedule(1e-3, batch=16, steps=UPDATES))
    record = obtain(Store(tmp_path), kind(find_model("opt-45k"), labels, recipe, 0), Resources())
    assert record["facts"]["updates"] == UPDATES
    assert record["facts"]["first_loss"] is not None
    assert not list(tmp_path.glob("cache/workers/*"))


def test_the_folder_of_a_dead_worker_goes_and_that_of_one_alive_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("WEAKTEACH_CACHE", str(tmp_path))
    workers = tmp_path / "workers"
    for name in ("dead", "alive"):
        leave(workers / name, "trainer_state.json")
        (workers / f"{name}.lock").touch()
    with FileLock(workers / "alive.lock"), own_folder() as own:
        assert {path.name for path in workers.iterdir() if path.is_dir()} == {"alive", own.name}
        assert list(own.iterdir()) == []
    assert not own.exists()
    assert (workers / "alive" / "checkpoint-4").exists()
