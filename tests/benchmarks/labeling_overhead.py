"""What Ray Data costs: labeling in a bare loop against the pipeline, in one process and in stages.

    python tests/benchmarks/labeling_overhead.py
    python tests/benchmarks/labeling_overhead.py --model smollm2-135m --data few.jsonl --pairs 256

All process the same chunks with the same models, one torch thread in each process, and take turns,
repeat by repeat; figures are medians. On CPUs the actor that labels tokenizes, too; "in stages"
that is apart, as it is on GPUs: tasks tokenize, and actors compute and write.
"prepared/s" and "made/s" are the rates of one worker of a stage while it is at work.

Rates are steady ones: the bare loop starts with its models loaded, and the pipeline's clock leaves
out the first and the last shards, while some actors are not yet at work or no more. What comes
before, the start of processes, imports and models, stands apart. CPU seconds are those of this
process and of all that it started, within the same span: other load on the machine moves them less
than the wall clock.

The last line is the host's time: CPU seconds of making shards from tokens without what a device
does, which is the models' forward passes and their heads.
"""

import json
import os
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest.mock import patch

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import psutil
import pyarrow.parquet as pq
import ray
import torch
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import ImplicitReward
from weakteach.labeling.shards import Busy, Stream, cut, prepare_shard, process_shard, write_shard
from weakteach.labeling.stream import stream_chunks
from weakteach.models import logprobs
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
    busy: Busy

    @property
    def rate(self) -> float:
        return self.pairs / self.seconds


class Apart(Resources):
    """Tasks prepare for actors, as on GPUs."""

    @property
    def preparing_cpus(self) -> float:
        return self.cpus / 2


def bare(work: ImplicitReward, stream: Stream) -> Run:
    rows = pq.read_table(stream.input)
    before = time.monotonic()
    loaded, reader = work.load(), work.load_reader()
    prepare_process(threads=1)
    work.process(loaded, work.prepare(reader, rows.slice(0, stream.chunk_rows)))
    started, cpu, preparing = time.monotonic(), time.process_time(), 0.0
    for start in range(0, len(rows), stream.chunk_rows):
        began = time.monotonic()
        prepared = work.prepare(reader, rows.slice(start, stream.chunk_rows))
        preparing += time.monotonic() - began
        work.process(loaded, prepared)
    spent, used = time.monotonic() - started, time.process_time() - cpu
    busy = Busy(len(rows), preparing, spent - preparing)
    return Run("bare loop", len(rows), spent, used, started - before, busy)


def pipeline(stream: Stream, resources: Resources) -> Run:
    cpu = CpuLog()
    before = time.time()
    with tempfile.TemporaryDirectory() as folder, cpu:
        here = replace(stream, shards=folder)
        shards = stream_chunks(here, resources)
        ends = sorted((os.stat(here.path(shard)).st_mtime, len(shard)) for shard in shards.shards)
    steady = ends[EDGE_SHARDS:-EDGE_SHARDS]
    if len(steady) < 2:
        raise UserError("Too few pairs for a steady rate: raise --pairs")
    start, stop = steady[0][0], steady[-1][0]
    pairs = sum(rows for _, rows in steady[1:])
    how = "in stages" if isinstance(resources, Apart) else "one process each"
    actors = resources.label_actors
    way = f"{actors} actor{'s' if actors > 1 else ''}, {how}"
    used = cpu.between(start, stop)
    return Run(way, pairs, stop - start, used, ends[0][0] - before, shards.busy)


def host_seconds(work: ImplicitReward, stream: Stream) -> float:
    """CPU seconds a pair of making all shards, where a device would do the rest."""
    loaded, reader = work.load(), work.load_reader()
    prepare_process(threads=1)
    used, rows = 0.0, 0
    without = patch.object(
        logprobs, "target_scores", lambda model, batch: torch.zeros(len(batch.targets))
    )
    with tempfile.TemporaryDirectory() as folder, without:
        here = replace(stream, shards=folder)
        for shard in cut(here, work.batch_tokens):
            prepared = prepare_shard(here, reader, shard)
            began = time.process_time()
            write_shard(here, shard, process_shard(here, loaded, prepared))
            used += time.process_time() - began
            rows += len(shard)
    return used / rows


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
    headings = ("way", "pairs/s", "of bare", "of one process", "prepared/s", "made/s",
                "CPU ms/pair", "start s")  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "way" else "right")
    ways = {
        way: [run for run in runs if run.way == way] for way in dict.fromkeys(r.way for r in runs)
    }
    rates = {way: median(run.rate for run in mine) for way, mine in ways.items()}
    plain = rates[next(iter(rates))]
    figures = {}
    for way, mine in ways.items():
        figures[way] = {
            "pairs_per_second": rates[way],
            "of_bare": rates[way] / plain,
            "of_one_process": rates[way] / rates[way.replace("in stages", "one process each")],
            "prepared_per_second": median(run.busy.rows / run.busy.preparing for run in mine),
            "made_per_second": median(run.busy.rows / run.busy.making for run in mine),
            "cpu_ms_per_pair": median(1000 * run.cpu_seconds / run.pairs for run in mine),
            "start_seconds": median(run.start_seconds for run in mine),
        }
        cells = [
            f"{value:,.0f}" if value > 99 else f"{value:.2f}" for value in figures[way].values()
        ]
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
    """The bare loop, and the pipeline with 1 and 2 actors, in one process each and in stages."""
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
        ways = [kind(label_actors=actors) for actors in (1, 2) for kind in (Resources, Apart)]
        work = ImplicitReward(store, policy, policy, BETA, "float32", ways[0].batch_tokens)
        stream = Stream(store, input_file, "", work, chunk_rows=chunk_rows)
        start_ray(None, 1, Resources(label_actors=3), verbose=False)  # two, and what they need
        runs, host = [], []
        for _ in range(repeats):
            runs += [bare(work, stream), *(pipeline(stream, way) for way in ways)]
            host.append(1e6 * host_seconds(work, stream))
        ray.shutdown()
    title = f"{len(rows):,} pairs, {found.label}, {os.cpu_count()} CPUs, medians of {repeats}"
    figures = show(Console(), runs, title)
    print(f"Host time of making shards, without forward passes: {median(host):.0f} µs a pair")
    facts = {
        "pairs": len(rows),
        "model": found.label,
        "chunk_rows": chunk_rows,
        "figures": figures,
        "host_microseconds": median(host),
    }
    out.write_text(json.dumps({**facts, "runs": [asdict(run) for run in runs]}, indent=1))


if __name__ == "__main__":
    launch(script(main))
