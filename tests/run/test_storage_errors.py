"""A storage that fails when an arm ends, or when all have, costs no arm and no report."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
from rich.console import Console

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.run.metrics import StudyMetrics
from weakteach.run.parts import Part
from weakteach.run.sweep import Recorder, run_study
from weakteach.run.trackers import Tracking
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.manifest import StudyInfo, make_manifest
from weakteach.study.measures import Measure, Setting

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
SETTING = Setting("world", "opt-45k", "DPO", "opt-230k", "1/4", "0.1", "with SFT")
TELLS = "Trackers cannot be told of results now: SlowDown"


class Unlisted(Store):
    """A storage that lists its steps once, as a study begins, and then no more; readers of single
    records and tables get them. What a trial gets of it is a plain store."""

    listed = 0

    def existing(self, steps):
        self.listed += 1
        if self.listed > 1:
            raise OSError("SlowDown")
        return super().existing(steps)


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
class Reward(Step):
    start: Tuned
    seed: int

    def compute(self, workspace):
        table = pa.table({"prompt_id": ["a", "b", "c"], "reward": [1.0, 2.0, 3.0 + self.seed]})
        pq.write_table(table, workspace.out / "rewards.parquet")
        return {"rows": 3, "mean": 2 + self.seed / 3, "se": 0.1}


def study():
    measures = []
    for seed in (0, 1):
        step = Reward(Tuned("a"), seed)
        named = ("reward", "weak", "gold", "Reward", step.fingerprint, step)
        measures.append(Measure(SETTING, seed, *named))
    return [Experiment("grid", "A grid", "A question?", "student", tuple(measures))]


def run(store, experiments, console, **how):
    info = StudyInfo("study", "A study", "embedded", "python s.py", store.url, started=1.0)
    return run_study(info, experiments, store, Resources(), 2, console, **how)


def finished(store, outcome):
    assert (outcome.findings.arms_done, outcome.findings.arms_failed) == (2, 0)
    page = Path(store.root, "studies", "study", "report.html").read_text()
    return "2 of 2 arms done" in page


@pytest.fixture
def console():
    return Console(width=1000, record=True)


@pytest.fixture
def computed(tmp_path):
    """The storage of a study whose steps all exist."""
    for one in walk(m.target for m in study()[0].measures):
        obtain(Store(tmp_path), one)
    return Unlisted(tmp_path)


@pytest.mark.parametrize("drop_sft", [False, True])
def test_the_last_report_is_there_though_nothing_can_be_listed_any_more(
    computed, console, drop_sft
):
    outcome = run(computed, study(), console, trackers=("tensorboard",), drop_sft=drop_sft)
    assert finished(computed, outcome)
    said = console.export_text().splitlines()
    assert said.count(TELLS) == 1
    assert ("How many SFT models stay is not known: SlowDown" in said) == drop_sft


def test_arms_go_on_though_nothing_can_be_listed_as_they_end(ray_here, tmp_path, console):
    store = Unlisted(tmp_path)
    outcome = run(store, study(), console, trackers=("tensorboard",))
    assert store.listed > 1
    assert finished(store, outcome)
    assert outcome.computed == 3
    assert TELLS in console.export_text()


def test_without_trackers_the_storage_is_not_asked(computed, console):
    arms = arms_of(study())
    computed.listed = 1
    tracking = Tracking((), "study", arms, computed, console)
    for place in range(2):
        trial = SimpleNamespace(config={"arm": place})
        tracking.on_trial_start(0, [], trial)
        tracking.on_trial_complete(0, [], trial)
    tracking.close()
    assert computed.listed == 1
    assert console.export_text() == ""


def test_a_run_that_the_storage_kept_open_ends_with_its_results_when_all_have(computed, console):
    arms = arms_of(study())
    computed.listed = 1
    tracking = Tracking(("tensorboard",), "study", arms, computed, console)
    trial = SimpleNamespace(config={"arm": 0})
    tracking.on_trial_start(0, [], trial)
    tracking.on_trial_complete(0, [], trial)
    events = [p for p in Path(computed.root, "studies").rglob("events.*") if p.is_file()]
    assert b"weak/gold_reward/gold" not in b"".join(file.read_bytes() for file in events)
    computed.listed = -100  # it answers again
    tracking.close()
    events = [p for p in Path(computed.root, "studies").rglob("events.*") if p.is_file()]
    assert len(events) == 2
    assert all(b"weak/gold_reward/gold" in file.read_bytes() for file in events)
    assert console.export_text().splitlines() == [TELLS]


def test_the_steps_of_a_lost_arm_are_told_from_what_is_known(computed, console):
    experiments = study()
    info = StudyInfo("study", "A study", "embedded", "python s.py", computed.url, started=1.0)
    steps = walk(m.target for m in experiments[0].measures)
    first, second = (measure.fingerprint for measure in experiments[0].measures)
    metrics = StudyMetrics("study", computed, steps)
    part = Part(arms_of(experiments))
    manifest = make_manifest(info, experiments)
    recorder = Recorder(manifest, part, computed, steps, {first}, console, metrics)
    computed.listed = 1
    for place in (0, 1):
        config = {"arm": place}
        trial = SimpleNamespace(
            trial_id=str(place), config=config, get_error=lambda: RuntimeError("no node")
        )
        recorder.on_trial_error(0, [], trial)
    assert recorder.failures == {second: "the trial's process died: no node"}
    assert recorder.open_arms == 0


class Sealed:
    """A file system in which nothing can be made."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def create_dir(self, *_, **__):
        raise OSError("SlowDown")


class Far(Store):
    is_local = False

    @property
    def filesystem(self):
        return Sealed(super().filesystem)


def test_what_trackers_wrote_stays_where_the_storage_does_not_take_it(
    computed, console, tmp_path, monkeypatch
):
    local = tmp_path / "local"
    local.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(local))
    tracking = Tracking(("tensorboard",), "study", arms_of(study()), Far(computed.url), console)
    tracking.close()
    (kept,) = local.iterdir()
    assert list(kept.rglob("events.*"))
    assert console.export_text().splitlines() == [
        "What trackers wrote cannot be copied now: SlowDown",
        f"What the trackers wrote lies on this machine: {kept}",
    ]
