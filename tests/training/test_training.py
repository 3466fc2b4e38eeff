import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray.cloudpickle
import ray.train
import torch
from forked import forking
from ray.train.v2._internal.execution.storage import StorageContext
from transformers import TrainerCallback

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.copies import cache_folder
from weakteach.artifacts.dropping import drop_bulk
from weakteach.artifacts.errors import LostError, StepError
from weakteach.artifacts.store import Store
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import Dpo, Sft, run_training
from weakteach.training import worker
from weakteach.training.recipes import DpoRecipe, Lora, Schedule, SftRecipe
from weakteach.training.sft import sft_trainer, train_sft
from weakteach.training.worker import train_and_save

# Workers cannot import this module, so what they run of it is sent whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
HERE = Resources()
GROUP = Resources(train_workers=2, cpus=1)


def labels_of(pairs=96):
    return HumanLabels(Pairs(WorldSource(pairs), (tokenizer_of(find_model("opt-45k")),)).all)


def sft(labels, **schedule):
    options = {"learning_rate": 1e-3, "batch": 16, **schedule}
    return Sft(find_model("opt-45k"), labels, SftRecipe(Schedule(**options)), seed=0)


def dpo(labels, lora=None, start=None, **schedule):
    options = {"learning_rate": 6e-4, "batch": 16, **schedule}
    recipe = DpoRecipe(Schedule(**options), beta=0.2, lora=lora)
    return Dpo(start or find_model("opt-45k"), labels, recipe, seed=0)


def file_hashes(store, step):
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in store.local(step).iterdir()
        if file.name != "record.json"
    }


def loss_history(store, step):
    lines = (store.local(step) / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_training_lowers_the_loss_and_the_same_step_gives_the_same_bytes(tmp_path):
    labels = labels_of(256)
    step = dpo(labels, start=sft(labels), epochs=3)
    first, second = Store(tmp_path / "1"), Store(tmp_path / "2")
    record = obtain(first, step, HERE)
    assert record["facts"]["pairs"] == 256
    assert record["facts"]["updates"] == 48
    losses = loss_history(first, step)
    assert losses[-1] < losses[0] - 0.05
    obtain(second, step, HERE)
    assert file_hashes(first, step) == file_hashes(second, step)
    before = file_hashes(first, step.start)
    assert list(drop_bulk(first, [step.start], set)) == [step.start]
    other = replace(step, seed=1)
    obtain(first, other, HERE)
    assert file_hashes(first, step.start) == before
    assert (
        file_hashes(first, other)["model.safetensors"]
        != (file_hashes(first, step)["model.safetensors"])
    )


def test_a_large_model_is_saved_in_several_files_and_read_by_what_goes_on_from_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "WEIGHT_FILE_BYTES", 10_000)
    labels = labels_of()
    step = dpo(labels, start=sft(labels))
    cut, whole = Store(tmp_path / "1"), Store(tmp_path / "2")
    obtain(cut, step, HERE)
    monkeypatch.undo()
    obtain(whole, step, HERE)
    for one in (step, step.start):
        assert len(list(cut.local(one).glob("*.safetensors"))) > 2
        models = [load_causal(weights_of(store, one)) for store in (cut, whole)]
        states = [model.state_dict() for model in models]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_the_cut_of_updates_and_checkpoints_change_no_parameter_beyond_rounding(tmp_path):
    step = sft(labels_of())
    whole, cut = Store(tmp_path / "1"), Store(tmp_path / "2")
    obtain(whole, step, HERE)
    obtain(cut, step, replace(HERE, train_tokens=100, checkpoint_steps=2))
    one, other = (load_causal(weights_of(store, step)) for store in (whole, cut))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert (a - b).abs().max() < 2e-3


def test_adapters_are_stored_alone_and_load_on_their_base(tmp_path):
    store, labels = Store(tmp_path), labels_of()
    step = dpo(labels, lora=Lora(rank=4), start=sft(labels))
    obtain(store, step, HERE)
    names = {file.name for file in store.local(step).iterdir()}
    assert "adapter_model.safetensors" in names
    assert "model.safetensors" not in names
    weights = weights_of(store, step)
    assert weights.adapters == (str(store.local(step)),)
    start = load_causal(weights_of(store, step.start))
    changed = [
        bool((a - b).abs().max() > 1e-5)
        for a, b in zip(start.parameters(), load_causal(weights).parameters(), strict=True)
    ]
    assert any(changed)
    assert not all(changed)


def train_and_look(config):
    """The training, and what it has written beside the model."""
    facts = train_sft(config)
    found = sorted(path.name for path in Path(config["job"].run_folder).glob("checkpoint-*"))
    return {**facts, "checkpoints": found}


@dataclass(frozen=True)
class Looked(Sft):
    def compute(self, workspace):
        return run_training(self, train_and_look, workspace)


def test_the_model_is_saved_once_and_not_beside_a_checkpoint_of_the_last_update(tmp_path):
    """Of 6 updates: a checkpoint after every third one but for the last, or none at all."""
    step = Looked(find_model("opt-45k"), labels_of(), SftRecipe(Schedule(1e-3, batch=16)), seed=0)
    for name, every, kept in (("asked for", 3, ["checkpoint-3"]), ("too seldom", 0, [])):
        resources = replace(HERE, checkpoint_steps=every)
        facts = obtain(Store(tmp_path / name), step, resources)["facts"]
        assert (facts["updates"], facts["checkpoints"]) == (6, kept)


def train_until_killed(storage, step):
    obtain(Store(storage), step, replace(HERE, checkpoint_steps=10))


def test_killed_training_goes_on_from_its_checkpoint_to_the_same_bytes(tmp_path):
    step, storage = dpo(labels_of(256), epochs=4), str(tmp_path / "killed")
    process = forking().Process(target=train_until_killed, args=(storage, step))
    process.start()
    scratch = Path(storage, "Dpo", f".{step.fingerprint}.scratch", "trainer")
    deadline = time.monotonic() + 120
    while not (scratch / "checkpoint-20" / "trainer_state.json").exists():
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store, whole = Store(storage), Store(tmp_path / "whole")
    assert store.record(step) is None
    assert (scratch / "checkpoint-20").exists()
    obtain(store, step, replace(HERE, checkpoint_steps=10))
    assert [p.name for p in scratch.parent.parent.iterdir()] == [step.fingerprint]
    obtain(whole, step, replace(HERE, checkpoint_steps=10))
    assert file_hashes(store, step) == file_hashes(whole, step)


def note_rows(config):
    """A training function that notes which rows its rank is given, in place of training."""
    trainer = sft_trainer(config["job"])
    rows = [row for batch in trainer.get_train_dataloader() for row in batch["rows"].tolist()]
    rank = ray.train.get_context().get_world_rank()
    Path(config["job"].stage, f"rows-{rank}.json").write_text(json.dumps(rows))
    return {"rows": len(rows)}


@dataclass(frozen=True)
class NoteRows(Sft):
    def compute(self, workspace):
        return run_training(self, note_rows, workspace)


@pytest.mark.slow
def test_two_workers_are_given_every_row_once_between_them(tmp_path, ray_here):
    labels = labels_of(256)
    step = NoteRows(find_model("opt-45k"), labels, SftRecipe(Schedule(1e-3, batch=16)), seed=0)
    given = []
    for name, resources in (("one", HERE), ("two", GROUP)):
        store = Store(tmp_path / name)
        obtain(store, step, resources)
        files = sorted(store.local(step).glob("rows-*.json"))
        given.append([json.loads(file.read_text()) for file in files])
    (alone,), (first, second) = given
    assert sorted(alone) == list(range(256))
    assert sorted(alone) == sorted(first + second)
    assert len(first) == len(second)


def kill_rank_1(config):
    """Training whose rank 1 dies once, after the first checkpoint was reported, whose sending takes
    until four updates later."""
    job = config["job"]
    marker = Path(job.run_folder).parent / "killed"
    trainer = sft_trainer(job)
    went_on, send = threading.Event(), StorageContext.persist_current_checkpoint

    def send_later(*checkpoint):
        assert went_on.wait(timeout=60)
        return send(*checkpoint)

    StorageContext.persist_current_checkpoint = send_later

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            rank = ray.train.get_context().get_world_rank()
            if state.global_step >= 12:
                went_on.set()
            if rank == 1 and state.global_step == 20 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    trainer.add_callback(Kill())
    resumed_at = ray.train.get_checkpoint()
    return {**train_and_save(trainer, job), "resumed": resumed_at is not None}


@dataclass(frozen=True)
class KilledOnce(Sft):
    def compute(self, workspace):
        return run_training(self, kill_rank_1, workspace)


@pytest.mark.slow
@pytest.mark.ci
def test_a_killed_worker_is_no_failure_and_training_resumes(tmp_path, ray_here):
    store, schedule = Store(tmp_path), Schedule(1e-3, batch=16, epochs=2)
    step = KilledOnce(find_model("opt-45k"), labels_of(256), SftRecipe(schedule), seed=0)
    record = obtain(store, step, replace(GROUP, checkpoint_steps=8, max_failures=0))
    assert record["facts"]["resumed"]
    assert record["facts"]["updates"] == 32
    assert record["device_seconds"] == 2 * record["seconds"]


def fail_and_count(config):
    with Path(config["job"].run_folder).parent.joinpath("tries").open("a") as file:
        file.write(f"{ray.train.get_context().get_world_rank()}")
    raise ValueError("no such thing")


@dataclass(frozen=True)
class FailAndCount(Sft):
    log: str = ""

    def compute(self, workspace):
        try:
            return run_training(self, fail_and_count, workspace)
        finally:
            shutil.copy(workspace.run_folder / "tries", self.log)


@pytest.mark.slow
def test_what_a_training_raises_is_not_taken_for_a_loss(tmp_path, ray_here):
    log = tmp_path / "tries"
    recipe = SftRecipe(Schedule(1e-3, batch=16))
    step = FailAndCount(find_model("opt-45k"), labels_of(64), recipe, seed=0, log=str(log))
    with pytest.raises(StepError, match="no such thing") as raised:
        obtain(Store(tmp_path), step, replace(GROUP, train_workers=1, max_failures=1))
    assert not isinstance(raised.value, LostError)
    assert log.read_text() == "00"


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path):
    step = sft(labels_of(), learning_rate=1e30, clip=1e30, epochs=40)
    with pytest.raises(StepError, match="lower the learning rate"):
        obtain(Store(tmp_path), step, HERE)


def test_a_batch_that_workers_cannot_share_is_refused_before_any_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("weakteach.training.launch.EndingTrainer", None)
    step = sft(labels_of(), batch=15)
    with pytest.raises(StepError, match="shared evenly"):
        obtain(Store(tmp_path), step, GROUP)


def leave_a_checkpoint(config):
    """What a worker of an earlier group left on this host, then the training."""
    job = config["job"]
    folder = Path(job.run_folder, "checkpoint-4")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text("{}")
    facts = train_sft(config)
    assert not folder.exists()
    return facts


@dataclass(frozen=True)
class AfterLeftovers(Sft):
    def compute(self, workspace):
        return run_training(self, leave_a_checkpoint, workspace)


@pytest.mark.slow
def test_a_group_goes_on_from_what_ray_train_has_and_leaves_nothing_on_its_hosts(
    tmp_path, ray_here
):
    """The cache is that of the tests' Ray: a worker that is alive elsewhere keeps its own."""
    dead = cache_folder() / "workers" / "0123.lock"
    dead.with_suffix("").mkdir(parents=True)
    dead.touch()
    recipe = SftRecipe(Schedule(1e-3, 16, epochs=3))
    step = AfterLeftovers(find_model("opt-45k"), labels_of(64), recipe, 0)
    record = obtain(Store(tmp_path), step, replace(GROUP, train_workers=1, checkpoint_steps=2))
    assert record["facts"]["updates"] == 12
    assert record["facts"]["first_loss"] is not None
    assert not dead.exists()
    assert not dead.with_suffix("").exists()
