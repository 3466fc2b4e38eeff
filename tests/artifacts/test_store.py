import json
import multiprocessing as mp
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.errors import LostError, StepError, StorageError
from weakteach.artifacts.identity import jsonable
from weakteach.artifacts.inventory import tidy
from weakteach.artifacts.losses import LOSSES_OF_A_STEP
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store


@dataclass(frozen=True)
class Write(Step):
    """Writes its text, and a line to a log for each time that it is computed."""

    text: str
    log: str

    def compute(self, workspace):
        with open(self.log, "a") as file:
            file.write(f"{self.text}\n")
        (workspace.out / "deep").mkdir()
        (workspace.out / "deep" / "text.txt").write_text(self.text)
        return {"rows": len(self.text)}


@dataclass(frozen=True)
class Join(Step):
    parts: tuple[Write, ...]

    def compute(self, workspace):
        texts = [(workspace.store.local(p) / "deep" / "text.txt").read_text() for p in self.parts]
        (workspace.out / "joined.txt").write_text("".join(texts))
        return {}


@dataclass(frozen=True)
class Slow(Step):
    """Tells that it began, waits until it is let go on, and goes on from what a scratch holds."""

    folder: str

    def compute(self, workspace):
        scratch = Path(workspace.scratch, "progress.txt")
        seen = scratch.read_text() if scratch.exists() else ""
        scratch.write_text(seen + "x")
        (workspace.out / "half.txt").write_text("half")
        Path(self.folder, f"began-{os.getpid()}").touch()
        while not Path(self.folder, "go").exists():
            time.sleep(0.02)
        with open(Path(self.folder, "log"), "a") as file:
            file.write("computed\n")
        (workspace.out / "seen.txt").write_text(seen)
        return {}


@dataclass(frozen=True)
class Fail(Step):
    log: str

    def compute(self, workspace):
        with open(self.log, "a") as file:
            file.write("tried\n")
        raise StepError("it cannot be")


@dataclass(frozen=True)
class Lost(Step):
    """Loses what computes it so many times; a scratch counts."""

    times: int

    def compute(self, workspace):
        tries = Path(workspace.scratch, "tries.txt")
        tried = len(tries.read_text()) if tries.exists() else 0
        tries.write_text("x" * (tried + 1))
        if tried < self.times:
            raise LostError(f"a node went at try {tried + 1}")
        return {"tries": tried + 1}


def obtain_in_process(storage, step):
    obtain(Store(storage), step)


def hold_lease_until_killed(store, step):
    with store.lease(type(step).__name__, step.fingerprint, wait=0.0):
        time.sleep(600)


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


def test_an_artifact_and_its_inputs_are_computed_once(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    joined = Join((Write("a", str(log)), Write("b", str(log))))
    record = obtain(store, joined)
    assert (store.local(joined) / "joined.txt").read_text() == "ab"
    assert obtain(store, joined) == record
    obtain(Store(tmp_path / "store"), Join((Write("b", str(log)), Write("c", str(log)))))
    assert log.read_text().split() == ["a", "b", "c"]


def test_the_record_says_what_was_computed_how_and_where(tmp_path):
    store = Store(tmp_path)
    step = Join((Write("a", str(tmp_path / "log")),))
    record = obtain(store, step)
    assert record == json.loads((Path(store.path(step)) / "record.json").read_text())
    assert record["step"] == "Join"
    assert record["fingerprint"] == step.fingerprint
    assert record["inputs"] == [{"step": "Write", "fingerprint": step.parts[0].fingerprint}]
    assert record["parameters"]["parts"] == [jsonable(step.parts[0])]
    assert store.record(step.parts[0])["parameters"] == {"text": "a", "log": step.parts[0].log}
    assert {"host", "seconds", "device_seconds", "packages", "code", "facts"} <= set(record)
    assert store.record(step.parts[0])["facts"] == {"rows": 1}
    assert store.find(step.fingerprint[:8]) == record
    assert store.find("nothing") is None


def test_a_folder_without_record_is_no_artifact_and_is_swept(tmp_path):
    store, step = Store(tmp_path), Write("a", str(tmp_path / "log"))
    half = Path(store.path(step))
    half.mkdir(parents=True)
    (half / "leftover.txt").write_text("half written")
    assert store.record(step) is None
    assert store.existing([step]) == set()
    obtain(store, step)
    assert not (half / "leftover.txt").exists()
    assert store.existing([step]) == {step.fingerprint}


def test_nothing_but_artifacts_is_left_behind(tmp_path):
    store, step = Store(tmp_path / "store"), Write("a", str(tmp_path / "log"))
    obtain(store, step)
    assert [p.name for p in (tmp_path / "store" / "Write").iterdir()] == [step.fingerprint]


def test_a_raised_version_computes_the_step_and_its_readers_again_and_nothing_else(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    newer = type("Write", (Write,), {"VERSION": 2})
    obtain(store, Join((Write("a", str(log)), Write("b", str(log)))))
    obtain(store, Join((newer("a", str(log)), Write("b", str(log)))))
    assert log.read_text().split() == ["a", "b", "a"]


def test_a_failing_step_fails_its_readers_once_and_leaves_the_others(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    bad, good = Fail(str(tmp_path / "tries")), Write("a", str(log))
    readers = [Join((bad, good)), Join((good, bad)), Join((good,))]
    outcomes = obtain_each(store, readers)
    assert [isinstance(outcomes[step], StepError) for step in readers] == [True, True, False]
    assert (tmp_path / "tries").read_text() == "tried\n"
    with pytest.raises(StepError, match="it cannot be"):
        obtain(store, bad)
    assert store.record(bad) is None


def test_a_step_that_failed_for_good_is_not_tried_again_where_failures_are_shared(tmp_path):
    store, failures = Store(tmp_path / "store"), {}
    bad, good = Fail(str(tmp_path / "tries")), Write("a", str(tmp_path / "log"))
    first = obtain_each(store, [bad], failures=failures)
    again = obtain_each(store, [Join((bad, good)), good], failures=failures)
    assert failures == {bad.fingerprint: "it cannot be"}
    assert str(again[Join((bad, good))]) == str(first[bad]) == "it cannot be"
    assert isinstance(again[Join((bad, good))], StepError)
    assert again[good]["fingerprint"] == good.fingerprint
    assert (tmp_path / "tries").read_text() == "tried\n"
    obtain_each(store, [bad])
    assert (tmp_path / "tries").read_text() == "tried\ntried\n"


def test_who_waits_for_a_step_that_fails_learns_it_and_does_not_try(tmp_path):
    failures, step = {}, Fail(str(tmp_path / "tries"))
    store = Store(tmp_path / "store")
    outcomes = []
    with store.lease("Fail", step.fingerprint, wait=0.0):
        waiting = Thread(
            target=lambda: outcomes.append(obtain_each(store, [step], failures=failures)[step])
        )
        waiting.start()
        failures[step.fingerprint] = "another saw it fail"
    waiting.join(30)
    assert str(outcomes[0]) == "another saw it fail"
    assert not (tmp_path / "tries").exists()


@pytest.mark.parametrize("error", [LostError("a node"), StorageError("a bucket"), OSError("disk")])
def test_what_may_pass_is_no_failure_for_good(tmp_path, error, monkeypatch):
    def fail(self, workspace):
        raise error

    failures, step = {}, Write("a", str(tmp_path / "log"))
    with monkeypatch.context() as patched:
        patched.setattr(Write, "compute", fail)
        outcome = obtain_each(Store(tmp_path), [step], failures=failures)[step]
    assert outcome is error
    assert failures == {}
    obtain_each(Store(tmp_path), [step], failures=failures)
    assert Store(tmp_path).record(step)


def test_a_step_that_lost_what_computed_it_is_computed_again_from_its_scratch(tmp_path):
    record = obtain(Store(tmp_path), Lost(LOSSES_OF_A_STEP - 1))
    assert record["facts"] == {"tries": LOSSES_OF_A_STEP}


def test_a_step_that_is_lost_every_time_fails(tmp_path):
    with pytest.raises(LostError, match=f"try {LOSSES_OF_A_STEP}$"):
        obtain(Store(tmp_path), Lost(1000))


def test_what_killed_processes_left_of_finished_steps_is_tidied_away(tmp_path):
    store, done = Store(tmp_path), Write("a", str(tmp_path / "log"))
    going_on = Write("b", str(tmp_path / "log"))
    obtain(store, done)
    process = mp.get_context("spawn").Process(
        daemon=True, target=hold_lease_until_killed, args=(store, done)
    )
    process.start()
    lease = tmp_path / ".leases" / f"Write-{done.fingerprint}"
    wait_for(lease.exists)
    process.kill()
    process.join()
    kept = [f".{going_on.fingerprint}.scratch", f".{going_on.fingerprint}.0123.stage"]
    for name in (f".{done.fingerprint}.scratch", f".{done.fingerprint}.0123.stage", *kept):
        (tmp_path / "Write" / name).mkdir()
    tidy(store, [done, going_on])
    assert not lease.exists()
    assert sorted(p.name for p in (tmp_path / "Write").iterdir()) == sorted(
        [done.fingerprint, *kept]
    )


def test_of_many_processes_one_computes_and_all_get_it(tmp_path):
    step = Slow(str(tmp_path))
    context = mp.get_context("spawn")
    storage = str(tmp_path / "store")
    workers = [
        context.Process(daemon=True, target=obtain_in_process, args=(storage, step))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    wait_for(lambda: list(tmp_path.glob("began-*")))
    (tmp_path / "go").touch()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "computed\n"


def test_when_the_holder_is_killed_the_next_takes_over_and_goes_on_from_the_scratch(tmp_path):
    step, storage = Slow(str(tmp_path)), str(tmp_path / "store")
    context = mp.get_context("spawn")
    first = context.Process(daemon=True, target=obtain_in_process, args=(storage, step))
    first.start()
    wait_for(lambda: list(tmp_path.glob("began-*")))
    second = context.Process(daemon=True, target=obtain_in_process, args=(storage, step))
    second.start()
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    killed = time.monotonic()
    wait_for(lambda: (tmp_path / f"began-{second.pid}").exists())
    assert time.monotonic() - killed < 10
    (tmp_path / "go").touch()
    second.join(30)
    store = Store(storage)
    assert second.exitcode == 0
    assert (store.local(step) / "seen.txt").read_text() == "x"
    assert (store.local(step) / "half.txt").exists()


def test_a_target_in_other_hands_does_not_hold_up_the_others(tmp_path):
    slow, storage = Slow(str(tmp_path)), str(tmp_path / "store")
    holder = mp.get_context("spawn").Process(
        daemon=True, target=obtain_in_process, args=(storage, slow)
    )
    holder.start()
    wait_for(lambda: list(tmp_path.glob("began-*")))
    computed = []

    def let_go(step):
        computed.append(step)
        (tmp_path / "go").touch()

    quick = Write("a", str(tmp_path / "written"))
    outcomes = obtain_each(Store(storage), [slow, quick], computed=let_go)
    holder.join(30)
    assert computed == [quick]
    assert outcomes[slow]["fingerprint"] == slow.fingerprint


def test_a_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="file"):
        Store(tmp_path / "file").check_writable()
    with pytest.raises(StorageError, match="nowhere"):
        Store("nowhere://bucket/x").check_writable()


def test_a_missing_artifact_is_an_error(tmp_path):
    with pytest.raises(StepError, match="no artifact"):
        Store(tmp_path).local(Write("a", ""))
