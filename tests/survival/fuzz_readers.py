"""Reading mutated inputs as a user's command would, in a process of its own, and what came of it.

Processes are watched from outside: what a library's native code does to them is seen too.
"""

import gc
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fuzz_inputs import inputs, tiny_gguf

KEPT, QUARANTINED, REFUSED = "all kept", "some quarantined", "refused"
CRASHED, HUNG, ESCAPED = "crashes", "hangs", "escapes"
READERS = ("jsonl", "jsonl.gz", "csv", "parquet", "gguf", "record")
MEMORY_BYTES = 1 << 30
MAX_TOKENS = 512
# What Python code that an input smuggled in would have to do, as the interpreter's audit tells it.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
    "pty.spawn", "socket.connect", "pickle.find_class", "ctypes.dlopen",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of an input. ``detail`` is the error's text, or where a crash happened."""

    reader: str
    batch: int
    index: int
    kind: str
    seconds: float
    detail: str = ""


def serve(connection: Connection, reader: str, seed: int, folder: str, study: str) -> None:
    """Read the inputs of the batches that the connection asks for, each told of before and after.

    ``study`` is the storage of a finished study, whose records are what ``record`` mutates.
    """
    work = Path(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(work)
    sys.dont_write_bytecode = True
    door = DOORS[reader](work, study)
    _limit_memory()
    guard = _Guard(work)
    while (asked := connection.recv()) is not None:
        batch, first, stop = asked
        try:
            made = inputs(reader, seed, batch, door.record(batch), stop)
        except Exception:
            connection.send(traceback.format_exc())
            return
        for index, data in list(enumerate(made))[first:]:
            connection.send(index)
            started = time.monotonic()
            guard.events.clear()
            guard.armed = True
            try:
                kind, detail = door.read(data)
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(last.filename).name}:{last.lineno}"
                kind, detail = CRASHED, f"{type(error).__name__} at {where}: {error}"[:300]
            guard.armed = False
            escaped = guard.events or door.outside()
            if escaped:
                kind, detail = ESCAPED, str(escaped)[:300]
            seconds = time.monotonic() - started
            connection.send(Outcome(reader, batch, index, kind, seconds, detail))
        connection.send(None)


def _limit_memory() -> None:
    """MEMORY_BYTES more than the libraries take."""
    status = Path("/proc/self/status").read_text()
    taken = next(line for line in status.splitlines() if line.startswith("VmData"))
    limit = int(taken.split()[1]) * 1024 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class _Guard:
    """Notes what Python code must not do while an input is read."""

    def __init__(self, work: Path) -> None:
        self.armed = False
        self.events: list[str] = []
        self._inside = f"{work}{os.sep}"
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in FORBIDDEN:
            self.events.append(f"{event} {arguments!r}")
        elif event == "open":
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            inside = isinstance(path, int) or os.path.abspath(os.fsdecode(path)).startswith(
                (self._inside, "/dev/null")
            )
            if writes and not inside:
                self.events.append(f"{event} {arguments!r}")


class Door(ABC):
    """A way that inputs come in."""

    def __init__(self, work: Path, study: str) -> None:
        self.work, self.study = work, study

    def record(self, batch: int) -> bytes:
        """The record that the batch mutates, where it does."""
        return b""

    @abstractmethod
    def read(self, data: bytes) -> tuple[str, str]:
        """The kind of outcome and its detail; raises what is no error of a user."""

    def outside(self) -> list[str]:
        """What lies where nothing should."""
        return []


class TableDoor(Door):
    """A file of pairs: made a source, read, cut into pairs and quarantine."""

    suffix = ""

    def read(self, data: bytes) -> tuple[str, str]:
        from weakteach.artifacts.errors import UserError
        from weakteach.preferences.sources import file_source
        from weakteach.preferences.table import write_pairs

        file, out = self.work / f"input.{self.suffix}", self.work / "out"
        file.write_bytes(data)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        try:
            source = file_source(file)
            counts = write_pairs(source.read(), out, source.name, _lengths, MAX_TOKENS)
        except UserError as error:
            return REFUSED, one_sentence(error, file.name)
        assert counts["rows"] == counts["pairs"] + counts["quarantined"], counts
        _check_tables(out, counts)
        return (QUARANTINED if counts["quarantined"] else KEPT), ""


def _lengths(pairs: list[Any]) -> list[int]:
    """Words in place of tokens: the tokenizer is no reader."""
    return [
        max(len(f"{p.prompt} {r}".split()) for r in (p.response_1, p.response_2)) for p in pairs
    ]


def _check_tables(out: Path, counts: dict[str, int]) -> None:
    import pyarrow.parquet as pq

    pairs = pq.read_table(out / "pairs.parquet")
    pairs.validate(full=True)
    quarantine = pq.read_table(out / "quarantine.parquet")
    quarantine.validate(full=True)
    assert (len(pairs), len(quarantine)) == (counts["pairs"], counts["quarantined"])
    assert len(set(pairs["pair_id"].to_pylist())) == len(pairs)
    assert all(quarantine["reason"].to_pylist())


def one_sentence(error: Exception, name: str) -> str:
    """The error's text; AssertionError if it is no single line, or does not name the file."""
    text = str(error)
    assert text.strip(), f"{type(error).__name__} without a text"
    assert "\n" not in text, f"several lines: {text}"
    assert name in text, f"{name} is not named: {text}"
    return text


class GgufDoor(Door):
    """A GGUF file: found as a model and made a plain one, in a store."""

    def __init__(self, work: Path, study: str) -> None:
        super().__init__(work, study)
        from transformers.utils import logging

        logging.set_verbosity_error()
        os.environ["TQDM_DISABLE"] = "1"
        kind, why = self.read(tiny_gguf())  # imports much, and opens libraries and a socket
        assert kind == KEPT, why

    def read(self, data: bytes) -> tuple[str, str]:
        import torch

        from weakteach.artifacts.computing import obtain
        from weakteach.artifacts.errors import UserError
        from weakteach.artifacts.store import Store
        from weakteach.models.loading import load_causal, weights_of
        from weakteach.models.spec import find_model
        from weakteach.models.tokens import load_tokenizer
        from weakteach.steps.data import Dequantized

        gc.collect()  # models refer to themselves: what the last inputs left counts to the limit
        file, storage = self.work / "input.gguf", self.work / "store"
        file.write_bytes(data)
        shutil.rmtree(storage, ignore_errors=True)
        store = Store(storage)
        try:
            step = Dequantized(find_model(str(file)))
            obtain(store, step)
        except UserError as error:
            assert not list(storage.glob("*/*/record.json"))
            return REFUSED, one_sentence(error, file.name)
        weights = weights_of(store, step)
        ids = load_tokenizer(weights.base)("abc")["input_ids"]
        with torch.no_grad():
            load_causal(weights)(torch.tensor([ids]))
        return KEPT, ""


class RecordDoor(Door):
    """A record of a finished study replaced by the input: ``show``, ``plan``, ``report``, and what
    a sweep asks of a store."""

    def __init__(self, work: Path, study: str) -> None:
        super().__init__(work, study)
        self.storage = work / "inside" / "store"
        shutil.copytree(study, self.storage)
        self.files = sorted(self.storage.glob("*/*/record.json"))
        self.studies = sorted(path.name for path in self.storage.glob("studies/*"))
        self.file = self.files[0]
        self.whole = b""
        self.reads = 0

    def record(self, batch: int) -> bytes:
        if self.whole:
            self.file.write_bytes(self.whole)
        self.file = self.files[batch % len(self.files)]
        self.whole = self.file.read_bytes()
        return self.whole

    def read(self, data: bytes) -> tuple[str, str]:
        from commands import weakteach

        self.file.write_bytes(data)
        self.reads += 1
        doors = [["show", self.file.parent.name]]
        if self.studies:
            doors.append(["plan", self.studies[0]])
            if self.reads % REPORT_EVERY == 0:
                doors.append(["report", self.studies[0]])
        refused = ""
        for door in doors:
            code, _, err = weakteach([*door, "--storage", str(self.storage)])
            if code:
                assert err.startswith("Error: "), err
                refused = one_sentence(Exception(err.strip()), self.file.parent.name)
        return (REFUSED, refused) if refused else (KEPT, "")

    def outside(self) -> list[str]:
        known = {"inside", "store"}
        return [str(path) for path in (*self.work.iterdir(), *self.storage.parent.iterdir())
                if path.name not in known]  # fmt: skip


# Drawing a report takes a hundred times as long as all else.
REPORT_EVERY = 20

DOORS: dict[str, type[Door]] = {
    **{
        suffix: type("TableDoor", (TableDoor,), {"suffix": suffix})
        for suffix in ("jsonl", "jsonl.gz", "csv", "parquet")
    },
    "gguf": GgufDoor,
    "record": RecordDoor,
}
