"""Dropping what no study reaches, beside processes that are at work or were killed at it."""

import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from filelock import Timeout
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector

from weakteach.artifacts.computing import obtain, obtain_each
from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.run.garbage import drop_garbage, find_garbage, garbage_table


@dataclass(frozen=True)
class Write(Step):
    text: str

    def compute(self, workspace):
        (workspace.out / "text.txt").write_text(self.text)
        return {}


@dataclass(frozen=True)
class Read(Step):
    parts: tuple[Write, ...]
    seed: int = 0

    def compute(self, workspace):
        (workspace.out / "seed.txt").write_text(str(self.seed))
        return {}


@dataclass(frozen=True)
class Slow(Step):
    """Tells that it began and never ends."""

    folder: str
    start: Write

    def compute(self, workspace):
        Path(workspace.scratch, "progress.txt").write_text("x")
        (workspace.out / "half.txt").write_text("half")
        Path(self.folder, "began").touch()
        while True:
            time.sleep(1)


def keep(store, name, *targets):
    """A study's folder, with of its manifest what it is made of."""
    folder = f"{store.root}/studies/{name}"
    store.filesystem.create_dir(folder, recursive=True)
    steps = [(type(step).__name__, step.fingerprint) for step in walk(targets)]
    with store.filesystem.open_output_stream(f"{folder}/study.json") as file:
        file.write(json.dumps({"steps": steps}).encode())


def obtain_in_process(storage, step):
    obtain(Store(storage), step)


@contextmanager
def at_work(store, folder, step):
    process = mp.get_context("spawn").Process(
        daemon=True, target=obtain_in_process, args=(store.url, step)
    )
    process.start()
    deadline = time.monotonic() + 60
    while not (folder / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def folders(store):
    return {path.name for path in Path(store.root).glob("*/*") if path.parent.name != "studies"}


def weakteach_gc(*options, answer=""):
    run = subprocess.run(
        [sys.executable, "-m", "weakteach.cli", "gc", *map(str, options)],
        capture_output=True, text=True, input=answer, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    return run.returncode, run.stdout, run.stderr


A, B, C = Write("a"), Write("b"), Write("c")


def test_what_no_study_reaches_is_dropped_and_the_rest_stays_as_it_was(tmp_path):
    store = Store(tmp_path)
    kept, unreached = Read((A, B)), Read((B, C), seed=1)
    obtain_each(store, [kept, unreached])
    keep(store, "one", kept)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("not a step")
    found = find_garbage(store)
    assert {item.step for item in found.items} == {
        ("Write", C.fingerprint),
        ("Read", unreached.fingerprint),
    }
    assert found.size == sum(
        file.stat().st_size for step in (C, unreached) for file in Path(store.path(step)).iterdir()
    )
    assert (found.kept, found.studies) == (3, ("one",))
    assert len(drop_garbage(store, found)) == 2
    assert folders(store) == {kept.fingerprint, A.fingerprint, B.fingerprint, "mine.txt"}
    assert find_garbage(store).items == ()


def test_a_forgotten_study_loses_its_folder_and_what_it_alone_reaches(tmp_path):
    store = Store(tmp_path)
    one, two = Read((A, B)), Read((B, C))
    obtain_each(store, [one, two])
    keep(store, "one", one)
    keep(store, "two", two)
    assert find_garbage(store).items == ()
    drop_garbage(store, find_garbage(store, ["two"]))
    assert folders(store) == {one.fingerprint, A.fingerprint, B.fingerprint}
    assert [path.name for path in (tmp_path / "studies").iterdir()] == ["one"]


def test_a_study_that_began_meanwhile_keeps_what_it_reaches(tmp_path):
    store = Store(tmp_path)
    obtain_each(store, [A, B])
    found = find_garbage(store)
    keep(store, "new", A)
    assert [item.step for item in drop_garbage(store, found)] == [("Write", B.fingerprint)]
    assert folders(store) == {A.fingerprint}


def test_what_is_being_made_stays_and_so_does_what_it_may_read(tmp_path):
    store, slow = Store(tmp_path / "store"), Slow(str(tmp_path), A)
    with at_work(store, tmp_path, slow):
        with pytest.raises(StorageError, match=f"{slow.fingerprint} is being made"):
            find_garbage(store, wait=1.0)
        keep(store, "one", slow)
        assert find_garbage(store, wait=1.0).items == ()


def test_of_a_killed_try_the_scratch_stays_while_its_study_does(tmp_path):
    store, slow = Store(tmp_path / "store"), Slow(str(tmp_path), A)
    half = tmp_path / "store" / "Write" / B.fingerprint
    half.mkdir(parents=True)
    (half / "text.txt").write_text("half")
    with at_work(store, tmp_path, slow):
        keep(store, "one", slow, B)
    assert [item.state for item in find_garbage(store).items] == ["stage", "half written"]
    drop_garbage(store, find_garbage(store))
    assert folders(store) == {A.fingerprint, f".{slow.fingerprint}.scratch"}
    drop_garbage(store, find_garbage(store, ["one"]))
    assert folders(store) == set()


def test_a_study_that_does_not_tell_its_steps_is_named(tmp_path):
    store = Store(tmp_path)
    obtain(store, A)
    keep(store, "odd")
    (tmp_path / "studies" / "odd" / "study.json").write_text("{}")
    with pytest.raises(StorageError, match="forget it with --drop odd"):
        find_garbage(store)
    with pytest.raises(StorageError, match="no study even"):
        find_garbage(store, ["even"])
    assert len(drop_garbage(store, find_garbage(store, ["odd"]))) == 1


def test_a_bucket_is_cleared_but_for_keys_that_are_held(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("WEAKTEACH_CACHE", str(tmp_path))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="weakteach"
    )
    url = f"s3://weakteach/w?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    held = set()

    def lease(key, wait):
        if any(key.endswith(f" {one}") for one in held):
            raise Timeout(key)
        return nullcontext()

    try:
        store = Store(url, lease)
        obtain_each(store, [A, B, C])
        keep(store, "one", A, Read((A,)))
        scratch = f"{store.root}/Read/.{Read((A,)).fingerprint}.scratch"
        stage = f"{store.root}/Write/.{A.fingerprint}.abcd.stage"
        for folder in (scratch, stage):
            with store.filesystem.open_output_stream(f"{folder}/file") as file:
                file.write(b"12345")
        found = find_garbage(store)
        assert [item.size for item in found.items if item.path == stage] == [5]
        held.add(f"Write-{B.fingerprint}")
        dropped = {item.path for item in drop_garbage(store, found)}
        assert dropped == {stage, store.path(C)}
        assert store.existing([A, B, C]) == {A.fingerprint, B.fingerprint}
        assert not store.filesystem.get_file_info(stage).is_file
        assert store.filesystem.get_file_info(f"{scratch}/file").is_file
        code, _, err = weakteach_gc("--storage", url)
        assert code == 2
        assert "say with --idle that none does" in err
        code, out, err = weakteach_gc("--storage", url, "--idle", "--drop", "one", "--yes")
        assert code == 0, err
        assert "3 of 3 dropped" in out
        files = FileSelector(store.root, recursive=True)
        assert not [i for i in store.filesystem.get_file_info(files) if i.is_file]
    finally:
        server.stop()


def test_the_command_shows_and_asks_before_it_drops(tmp_path):
    store = Store(tmp_path)
    obtain_each(store, [Read((A,), seed=7), B])
    record = Path(store.path(B), "record.json")
    forged = json.loads(record.read_text())
    forged["parameters"]["seed"] = "[red]\x1b]0;owned"
    forged["inputs"] = [{"step": "Write", "fingerprint": B.fingerprint}]
    record.write_text(json.dumps(forged))  # its digest does not fit: it tells no label
    for answer in ("n\n", ""):  # the second where nobody is there, as under cron
        code, out, err = weakteach_gc("--storage", tmp_path, answer=answer)
        assert (code, err) == (1, "")
        assert "Drop them?" in out
        assert out.endswith("Nothing was dropped.\n")
    assert f"{Read((A,), seed=7).fingerprint[:8]} seed 7" in out
    assert "owned" not in out
    assert "0 artifacts of 0 studies stay" in out
    assert len(folders(store)) == 3
    code, out, err = weakteach_gc("--storage", tmp_path, "--yes")
    assert (code, folders(store)) == (0, set()), err
    assert "3 of 3 dropped" in out


def test_labels_survive_records_of_any_shape(tmp_path):
    store = Store(tmp_path)
    obtain(store, A)
    for odd in ("[]", "{}", '{"inputs": 3, "parameters": []}', "no json"):
        Path(store.path(A), "record.json").write_text(odd)
        assert garbage_table(store, find_garbage(store)).row_count == 2
