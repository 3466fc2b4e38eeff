"""Which SFT models a study may drop: those that nobody is about to read."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.run.dropping import Dropping, may_be_read


@dataclass(frozen=True)
class Tuned(Step):
    name: str

    @property
    def bulk(self):
        return ("*.safetensors",)

    def compute(self, workspace):
        (workspace.out / "model.safetensors").write_text(self.name)
        return {}


@dataclass(frozen=True)
class Reads(Step):
    start: Tuned
    seed: int = 0

    def compute(self, workspace):
        (workspace.store.local(self.start) / "model.safetensors").read_text()
        return {}


A, B = Tuned("a"), Tuned("b")
OF_A, OF_B, MORE = Reads(A), Reads(B), Reads(A, seed=1)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    for step in (OF_A, OF_B):
        obtain(store, step)
    return store


def study(store, name, *targets):
    folder = Path(store.root, "studies", name)
    folder.mkdir(parents=True)
    steps = [(type(step).__name__, step.fingerprint) for step in walk(targets)]
    (folder / "study.json").write_text(json.dumps({"steps": steps}))


def staying(store, *targets):
    found = may_be_read(store, "mine", walk(targets))
    return {step for step in (A, B) if step.fingerprint in found}


def test_what_a_missing_step_of_the_study_reads_stays(store):
    assert staying(store, OF_A, OF_B) == set()
    assert staying(store, OF_A, OF_B, MORE) == {A}


def test_what_another_study_reaches_stays_until_it_is_done(store):
    study(store, "mine", OF_A, OF_B)
    study(store, "done", OF_B)
    assert staying(store, OF_A, OF_B) == set()
    study(store, "open", MORE)
    assert staying(store, OF_A, OF_B) == {A}
    study(store, "odd")
    Path(store.root, "studies", "odd", "study.json").write_text("{}")
    with pytest.raises(StorageError, match="odd"):
        staying(store, OF_A, OF_B)


def test_what_somebody_at_work_may_read_stays(store):
    with store.lease("Reads", OF_A.fingerprint, 0.0):
        assert staying(store, OF_A, OF_B) == {A}
    with store.lease("Reads", "0" * 20, 0.0):  # of no study: who knows what it reads
        assert staying(store, OF_A, OF_B) == {A, B}
        study(store, "done", OF_B)
        assert staying(store, OF_A, OF_B) == {A, B}
    with store.lease("Reads", OF_B.fingerprint, 0.0):  # of a study that has no other model
        assert staying(store, A, OF_A) == {B}


def dropping(store, *targets):
    console = Console(width=1000, record=True)
    return Dropping(store, "mine", walk(targets), console), console


def test_models_go_as_arms_end_and_the_end_tells_how_many(store):
    size = Path(store.path(A), "model.safetensors").stat().st_size
    part, console = dropping(store, OF_A, OF_B, MORE)
    part.an_arm_ended()
    assert store.dropped([A, B]) == {B.fingerprint}
    obtain(store, MORE)
    part.an_arm_ended()  # too soon to list the storage again
    assert store.dropped([A, B]) == {B.fingerprint}
    part.all_arms_ended()
    assert store.dropped([A, B]) == {A.fingerprint, B.fingerprint}
    assert console.export_text().splitlines() == [f"2 SFT models were dropped, {2 * size} bytes."]


def test_what_stays_is_told_and_a_storage_that_fails_ends_no_study(store):
    part, console = dropping(store, OF_A, MORE)
    part.all_arms_ended()
    assert console.export_text().startswith("1 SFT model stays")
    study(store, "odd")
    Path(store.root, "studies", "odd", "study.json").write_text("{}")
    part, console = dropping(store, OF_A)
    part.an_arm_ended()
    part.all_arms_ended()
    lines = console.export_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "No SFT model can be dropped now", "1 SFT model stays",
    ]  # fmt: skip
    assert store.dropped([A]) == set()
