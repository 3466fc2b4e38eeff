"""Mutated inputs for every reader: JSONL, gz, CSV, Parquet, GGUF and record.json.

    python tests/survival/fuzz.py
    python tests/survival/fuzz.py --inputs 2000 --readers parquet,gguf --seed 7

Half of the inputs are made by hypothesis, of values that fit and values that do not; half are the
bytes of those changed at random. Each is read as a user's command would: each of its rows must be
kept or quarantined, or the whole refused by one sentence that names the file. Reading happens in
processes of their own with a limit of memory and of time, so that crashes of native code and hangs
are seen and counted. An escape is a file written outside of the folders given, a process, a
connection or a pickle.

The JSON tells seed, batch and index of each input that failed: inputs(reader, seed, batch) of
fuzz_inputs.py makes it again.
"""

import json
import multiprocessing as mp
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from fuzz_inputs import BATCH
from fuzz_readers import (
    CRASHED,
    ESCAPED,
    HUNG,
    KEPT,
    QUARANTINED,
    READERS,
    REFUSED,
    Outcome,
    serve,
)
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.run.terminal import launch, script

ROOT = Path(__file__).parents[2]
KINDS = (KEPT, QUARANTINED, REFUSED, CRASHED, HUNG, ESCAPED)
BAD = (CRASHED, HUNG, ESCAPED)
SECONDS_TO_START = 180.0
STUDY = ("--data", "world:300", "--test-pairs", "40", "--student", "opt-45k", "--seeds", "0",
         "--weak", "opt-45k", "--fractions", "1/2")  # fmt: skip


def outcomes(
    reader: str, count: int, seed: int, timeout: float, study: str = ""
) -> Iterator[Outcome]:
    """What came of each of ``count`` inputs; a process that dies or hangs is replaced."""
    batches = [(batch, min(BATCH, count - batch * BATCH)) for batch in range(-(-count // BATCH))]
    worker = _Worker(reader, seed, study)
    try:
        for batch, wanted in batches:
            first = 0
            while first < wanted:
                for outcome in worker.batch(batch, first, wanted, timeout):
                    yield outcome
                    first = outcome.index + 1
                if not worker.alive:
                    worker.close()
                    worker = _Worker(reader, seed, study)
    finally:
        worker.close()


class _Worker:
    """A process that reads inputs; see ``fuzz_readers.serve``."""

    def __init__(self, reader: str, seed: int, study: str) -> None:
        self._reader = reader
        self._folder = tempfile.TemporaryDirectory(prefix="weakteach-fuzz-")
        context = mp.get_context("spawn")
        self._here, there = context.Pipe()
        arguments = (there, reader, seed, self._folder.name, study)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        there.close()
        self.alive = True

    def batch(self, batch: int, first: int, stop: int, timeout: float) -> Iterator[Outcome]:
        """Outcomes of inputs ``first`` to ``stop``; ends early, and not alive, with a crash or a
        hang."""
        self._here.send((batch, first, stop))
        index = first
        patience = SECONDS_TO_START
        while True:
            try:
                if not self._here.poll(patience):
                    yield self._dead(batch, index, HUNG, patience)
                    return
                told = self._here.recv()
            except (EOFError, ConnectionError):
                self._process.join()
                yield self._dead(batch, index, CRASHED, 0.0)
                return
            if told is None:
                return
            patience = timeout
            if isinstance(told, str):
                raise RuntimeError(f"Inputs cannot be made: {told}")
            if isinstance(told, Outcome):
                yield told
            else:
                index = told

    def _dead(self, batch: int, index: int, kind: str, seconds: float) -> Outcome:
        self.alive = False
        detail = f"the process ended with {self._process.exitcode}" if kind == CRASHED else "no end"
        return Outcome(self._reader, batch, index, kind, seconds, detail)

    def close(self) -> None:
        if self.alive:
            self._here.send(None)
            self._process.join(10)
        self._process.kill()
        self._process.join()
        self._folder.cleanup()


def make_study(storage: Path) -> None:
    """A finished study whose records are to be mutated."""
    command = [sys.executable, "sweeps/size_grid.py", "--storage", str(storage), *STUDY]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def table_of(found: list[Outcome]) -> Table:
    table = Table(
        title=f"{len(found):,} inputs", title_justify="left", box=box.SIMPLE_HEAD, padding=0
    )
    for heading in ("reader", "inputs", *KINDS, "slowest s"):
        justify: Literal["left", "right"] = "left" if heading == "reader" else "right"
        table.add_column(heading.replace(" ", "\n", 1), justify=justify, no_wrap=True)
    for reader in dict.fromkeys(outcome.reader for outcome in found):
        mine = [outcome for outcome in found if outcome.reader == reader]
        counts = [sum(outcome.kind == kind for outcome in mine) for kind in KINDS]
        slowest = max(outcome.seconds for outcome in mine)
        table.add_row(reader, f"{len(mine):,}", *(f"{n:,}" for n in counts), f"{slowest:.2f}")
    return table


def main(
    count: Annotated[
        int, Parameter(name="--inputs", help="Inputs of all readers.", validator=Number(gte=6))
    ] = 10_000,
    readers: Annotated[str, Parameter(help="Which, separated by commas.")] = ",".join(READERS),
    seed: Annotated[
        int, Parameter(help="Other inputs for another seed.", validator=Number(gte=0))
    ] = 0,
    timeout: Annotated[
        float, Parameter(help="Seconds until an input hangs.", validator=Number(gte=1))
    ] = 60.0,
    study: Annotated[
        Path | None, Parameter(help="Storage of a finished study; made (a minute) without it.")
    ] = None,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("fuzz.json"),
) -> int:
    """Read mutated inputs; exit code 1 if any crashes, hangs or escapes."""
    console = Console()
    wanted = readers.split(",")
    if unknown := sorted(set(wanted) - set(READERS)):
        raise UserError(f"no reader {', '.join(unknown)}; there are {', '.join(READERS)}")
    with tempfile.TemporaryDirectory(prefix="weakteach-fuzz-") as folder:
        storage = study or Path(folder, "study")
        if study is None and "record" in wanted:
            console.print("Making a study, whose records are mutated …")
            make_study(storage)
        found: list[Outcome] = []
        with Progress(console=console) as progress:
            for place, reader in enumerate(wanted):
                share = (count + place) // len(wanted)
                task = progress.add_task(reader, total=share)
                for outcome in outcomes(reader, share, seed, timeout, str(storage)):
                    found.append(outcome)
                    progress.advance(task)
    console.print(table_of(found))
    bad = [outcome for outcome in found if outcome.kind in BAD]
    for outcome in bad[:40]:
        where = f"batch {outcome.batch} index {outcome.index}"
        console.print(f"{outcome.reader} {where}: {outcome.kind}: {outcome.detail}", markup=False)
    facts = {"seed": seed, "outcomes": [asdict(o) for o in bad]}
    out.write_text(json.dumps(facts, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    launch(script(main))
