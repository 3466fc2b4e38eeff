"""What Ray Data costs: labeling in a bare loop against the pipeline with one and with two actors.

    python tests/benchmarks/labeling_overhead.py
    python tests/benchmarks/labeling_overhead.py --model smollm2-135m --data few.jsonl --pairs 256

All three process the same chunks with the same models, one torch thread in each process, and take
turns, repeat by repeat; figures are medians. Rates are steady ones: the bare loop starts with its
models loaded, and the pipeline's clock leaves out the first and the last shards, while some actors
are not yet at work or no more. What comes before, the start of processes, imports and models,
stands apart. CPU seconds are those of this process and of all that it started,
within the same span: other load on the machine moves them less than the wall clock.
"""

import json
import os
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import psutil
import pyarrow.parquet as pq
import ray
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import ImplicitReward
from weakteach.labeling.shards import Stream
from weakteach.labeling.stream import stream_chunks
from weakteach.models.process import prepare_process
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model
from weakteach.preferences.pair import CHUNK_ROWS, GROUP_ROWS
from weakteach.run.cluster import start_ray
from weakteach.run.terminal import launch, script
from weakteach.steps.data import Pairs
from weakteach.study.grids import find_source
from weakteach.study.policies import policy_of, tokenizers_of
from weakteach.study.presets import EMBEDDED

BETA = 0.1
EDGE_SHARDS = 8


@dataclass(frozen=True)
class Run:
    """One pass over the pairs; ``pairs`` are those labeled in ``seconds``, the steady span."""

    way: str
    pairs: int
    seconds: float
    cpu_seconds: float
    start_seconds: float

    @property
    def rate(self) -> float:
        return self.pairs / self.seconds


def bare(work: ImplicitReward, stream: Stream) -> Run:
    rows = pq.read_table(stream.input)
    before = time.monotonic()
    loaded = work.load()
    prepare_process(threads=1)
    work.process(loaded, rows.slice(0, stream.chunk_rows))
    started, cpu = time.monotonic(), time.process_time()
    for start in range(0, len(rows), stream.chunk_rows):
        work.process(loaded, rows.slice(start, stream.chunk_rows))
    ended, used = time.monotonic(), time.process_time() - cpu
    return Run("bare loop", len(rows), ended - started, used, started - before)


def pipeline(stream: Stream, actors: int) -> Run:
    cpu = CpuLog()
    before = time.time()
    with tempfile.TemporaryDirectory() as folder, cpu:
        here = Stream(stream.store, stream.input, folder, stream.work, chunk_rows=stream.chunk_rows)
        shards = stream_chunks(here, Resources(label_actors=actors))
        ends = sorted((os.stat(here.path(shard)).st_mtime, len(shard)) for shard in shards.shards)
    steady = ends[EDGE_SHARDS:-EDGE_SHARDS]
    if len(steady) < 2:
        raise UserError("Too few pairs for a steady rate: raise --pairs")
    start, stop = steady[0][0], steady[-1][0]
    pairs = sum(rows for _, rows in steady[1:])
    way = f"pipeline, {actors} actor{'s' if actors > 1 else ''}"
    return Run(way, pairs, stop - start, cpu.between(start, stop), ends[0][0] - before)


class CpuLog:
    """CPU seconds of this process and its descendants, read off now and then."""

    def __init__(self) -> None:
        self._log: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0.0
            for process in (me, *me.children(recursive=True)):
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                total += times.user + times.system
            self._log.append((time.time(), total))

    def between(self, start: float, stop: float) -> float:
        inside = [used for when, used in self._log if start <= when <= stop]
        spans = [when for when, _ in self._log if start <= when <= stop]
        if len(inside) < 2:
            raise UserError("Too short for a rate of CPU seconds: raise --pairs")
        return (inside[-1] - inside[0]) * (stop - start) / (spans[-1] - spans[0])


def show(console: Console, runs: list[Run], title: str) -> dict[str, dict[str, float]]:
    table = Table(title=title, title_justify="left")
    for heading in ("way", "pairs/s", "of bare", "of 1 actor", "CPU ms/pair", "start s"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    ways = {
        way: [run for run in runs if run.way == way] for way in dict.fromkeys(r.way for r in runs)
    }
    rates = {way: median(run.rate for run in mine) for way, mine in ways.items()}
    plain, one = list(rates.values())[:2]
    figures = {}
    for way, mine in ways.items():
        figures[way] = {
            "pairs_per_second": rates[way],
            "of_bare": rates[way] / plain,
            "of_one_actor": rates[way] / one,
            "cpu_ms_per_pair": median(1000 * run.cpu_seconds / run.pairs for run in mine),
            "start_seconds": median(run.start_seconds for run in mine),
        }
        cells = [f"{value:,.2f}" for value in figures[way].values()]
        table.add_row(way, *cells)
    console.print(table)
    return figures


def main(
    pairs: Annotated[
        int, Parameter(help="Pairs labeled by each run.", validator=Number(gte=CHUNK_ROWS))
    ] = 16384,
    model: Annotated[str, Parameter(help="Both policy and reference.")] = "opt-45k",
    data: Annotated[str | None, Parameter(help="world:<pairs> or a file; world if left.")] = None,
    chunk_rows: Annotated[
        int, Parameter(help="Pairs of a chunk.", validator=Number(gte=1))
    ] = CHUNK_ROWS,
    repeats: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("labeling_overhead.json"),
) -> None:
    """The bare loop, the pipeline with 1 actor, and with 2, in turns."""
    prepare_process(threads=1)
    found = find_model(model)
    # The world repeats itself now and then, and what is a duplicate is no pair.
    source = find_source(data or f"world:{pairs + pairs // 8}")
    with tempfile.TemporaryDirectory(prefix="weakteach-") as folder:
        store = Store(folder)
        kept = Pairs(source, tokenizers_of(found))
        obtain(store, kept)
        rows = kept.all.read(store).slice(0, pairs)
        input_file = f"{folder}/input.parquet"
        pq.write_table(rows, input_file, row_group_size=GROUP_ROWS)  # as a step writes pairs
        policy = policy_of(found, EMBEDDED.pretraining_documents)
        if not hasattr(policy, "location"):
            obtain(store, policy)
        resources = Resources(label_actors=2)
        work = ImplicitReward(store, policy, policy, BETA, "float32", resources.batch_tokens)
        stream = Stream(store, input_file, "", work, chunk_rows=chunk_rows)
        start_ray(None, 1, resources, verbose=False)
        runs = []
        for _ in range(repeats):
            runs += [bare(work, stream), pipeline(stream, 1), pipeline(stream, 2)]
        ray.shutdown()
    title = f"{len(rows):,} pairs, {found.label}, {os.cpu_count()} CPUs, medians of {repeats}"
    figures = show(Console(), runs, title)
    facts = {"pairs": len(rows), "model": found.label, "chunk_rows": chunk_rows, "figures": figures}
    out.write_text(json.dumps({**facts, "runs": [asdict(run) for run in runs]}, indent=1))


if __name__ == "__main__":
    launch(script(main))
