"""What ``dpo_vs_trl.py`` and ``sft_vs_trl.py`` have in common: settings, turns, figures.

In each setting there are three ways to the same loss: ours, TRL's trainer on texts as its user
would configure it, and a bare loop of padded rows in plain torch, which has no trainer around it.
They take turns, repeat by repeat; figures are medians. CPU seconds (all threads) stand beside wall
seconds, since other load on the machine moves the latter more. The share of the peak is that of a
1024x1024 float32 matrix product in the same run, by CPU time; operations are those of the products
with weights that our way needs, three times those of a forward pass (two with adapters, whose
weights below are frozen).
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PrinterCallback

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.memory import Fit
from weakteach.models.process import prepare_process
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model, tokenizer_of
from weakteach.models.tokens import PairTokens
from weakteach.preferences.pair import preference_set
from weakteach.preferences.sources import WorldSource, file_source
from weakteach.steps.data import Dequantized, Pairs, labels_file
from weakteach.steps.labels import HumanLabels
from weakteach.training.recipes import Lora, Schedule
from weakteach.training.worker import TrainingJob, trainer_arguments

WORLD_PAIRS = 512
# Pairs of the file that the bare loop pads together: with 16 its activations take over 24 GB.
TOGETHER = 4


@dataclass(frozen=True)
class Setting:
    """``data`` is a file of comparisons, or none for the embedded world."""

    model: str
    data: Path | None
    batch: int
    threads: int
    updates: int
    lora: Lora | None


@dataclass(frozen=True)
class Run:
    """Of one way: CPU and wall seconds until the first update, and those of all updates."""

    start_cpu: float
    cpu: float
    wall: float
    losses: list[float]


def settings_of(
    data: Path | None, models: str, large: str, batches: str, threads: str, updates: int
) -> list[Setting]:
    """The embedded models on the world, fully trained, and the large one on the file, if there is
    one, with adapters."""
    found = []
    for count in map(int, threads.split(",")):
        for model in filter(None, models.split(",")):
            found.append(Setting(model, None, 16, count, 10 * updates, None))
        for batch in map(int, batches.split(",")) if data else ():
            found.append(Setting(large, data, batch, count, updates, Lora()))
    return found


def job_of(store: Store, setting: Setting, recipe: Any) -> TrainingJob:
    model = find_model(setting.model)
    start: Any = Dequantized(model) if model.is_gguf else model
    tokenizer = start if model.is_gguf else tokenizer_of(model)
    source = file_source(setting.data) if setting.data else WorldSource(WORLD_PAIRS)
    labels = HumanLabels(Pairs(source, (tokenizer,)).all)
    for step in (*((start,) if model.is_gguf else ()), *labels.inputs, labels):
        obtain(store, step, Resources())
    # As many pairs as there are updates for, evenly out of the file.
    table = pq.read_table(labels_file(store, labels))
    count = min(len(table), setting.updates * setting.batch) if setting.data else len(table)
    chosen = f"{store.url}/labels-{count}.parquet"
    pq.write_table(table.take(np.linspace(0, len(table) - 1, count).astype(int)), chosen)
    return TrainingJob(
        store=store,
        start=start,
        pairs=labels.part.file(store),
        labels=chosen,
        recipe=recipe,
        seed=0,
        resources=Resources(threads=setting.threads),
        dtype="float32",
        stage="",
        run_folder="",
    )


def schedule_of(setting: Setting) -> Schedule:
    return Schedule(5e-5, batch=setting.batch, steps=setting.updates)


def texts_of(job: TrainingJob) -> Dataset:
    pairs, labels = pq.read_table(job.pairs), pq.read_table(job.labels)
    table = preference_set(pairs, labels.select(["pair_id", "choice"]))
    names = ("prompt", "chosen", "rejected")
    return Dataset.from_dict({name: table[name].to_pylist() for name in names})


def arguments(job: TrainingJob) -> dict[str, Any]:
    return {**trainer_arguments(job, job.recipe.schedule, Fit()), "save_strategy": "no"}


def run_trainer(build: Callable[[TrainingJob], Any], job: TrainingJob) -> Run:
    start = time.process_time()
    trainer = build(job)
    trainer.args.save_strategy = "no"
    trainer.remove_callback(PrinterCallback)
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.train()
    ended, wall = time.process_time(), time.perf_counter() - wall
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return Run(cpu - start, ended - cpu, wall, losses)


def run_bare(
    model: torch.nn.Module,
    loss_of: Callable[[list[int]], torch.Tensor],
    pairs: int,
    setting: Setting,
) -> Run:
    """AdamW, clipped, on rows drawn as they come; its losses are not kept."""
    model.train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, weight_decay=0.0, fused=True)
    order = torch.randperm(pairs).repeat(1 + setting.updates * setting.batch // pairs).tolist()
    cpu, wall = time.process_time(), time.perf_counter()
    together = min(setting.batch, TOGETHER) if setting.data else setting.batch
    for start in range(0, setting.updates * setting.batch, setting.batch):
        for part in range(start, start + setting.batch, together):
            loss = loss_of(order[part : part + together]) * together / setting.batch
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return Run(0.0, time.process_time() - cpu, time.perf_counter() - wall, [])


def padded(rows: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def peak_rate() -> float:
    """Multiply-adds count twice; per CPU second, the best of ten."""
    a, b = torch.randn(2, 1024, 1024)

    def seconds() -> float:
        before = time.process_time()
        _ = a @ b
        return time.process_time() - before

    return 2 * 1024**3 / min(seconds() for _ in range(10))


def operations(model: Any, pairs: list[PairTokens], setting: Setting) -> float:
    """Of all updates, where each prompt is read once; a second response may be empty."""
    weights = sum(
        module.weight.numel()
        for module in model.base_model.modules()
        if isinstance(module, torch.nn.Linear)
    )
    responses = sum(len(p.response_1) + len(p.response_2) for p in pairs)
    tokens = sum(p.total - p.shared for p in pairs)
    forward = 2.0 * (weights * tokens + model.get_output_embeddings().weight.numel() * responses)
    passes = 2 if setting.lora else 3
    return passes * forward / len(pairs) * setting.batch * setting.updates


def compare(
    setting: Setting,
    job: TrainingJob,
    ways: Mapping[str, Callable[[TrainingJob], Run]],
    needed: float,
    repeats: int,
) -> dict[str, Any]:
    """The first of the ways is ours, the second TRL's, the third the bare loop."""
    prepare_process(setting.threads)
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        job = replace(job, run_folder=folder)
        brief = replace(job.recipe, schedule=replace(job.recipe.schedule, steps=1))
        for run in ways.values() if not setting.data else ():  # whose updates take minutes
            run(replace(job, recipe=brief))  # warm
        for _ in range(repeats):
            peaks.append(peak_rate())
            for name, run in ways.items():
                runs[name].append(run(job))
                last = runs[name][-1]
                Console(stderr=True).log(f"{name}: CPU {last.cpu:.2f} s, wall {last.wall:.2f} s")
    cpu, wall, start = (
        {name: median(getattr(run, unit) for run in done) for name, done in runs.items()}
        for unit in ("cpu", "wall", "start_cpu")
    )
    ours, trl, bare = ways
    return {
        **asdict(setting),
        "data": setting.data.name if setting.data else "world",
        "ms_per_update": 1000 * cpu[ours] / setting.updates,
        "ms_per_update_trl": 1000 * cpu[trl] / setting.updates,
        "ms_per_update_bare": 1000 * cpu[bare] / setting.updates,
        "faster_cpu": cpu[trl] / cpu[ours],
        "faster_wall": wall[trl] / wall[ours],
        "of_bare": cpu[ours] / cpu[bare],
        "start_seconds": start[ours],
        "start_seconds_trl": start[trl],
        "peak_share": needed / cpu[ours] / median(peaks),
        "loss": runs[ours][0].losses[-1:],
        "loss_trl": runs[trl][0].losses[-1:],
    }


def show(title: str, figures: list[dict[str, Any]], repeats: int, out: Path) -> None:
    shown = {
        "model": "model", "batch": "batch", "threads": "threads", "ms_per_update": "CPU ms/update",
        "ms_per_update_trl": "TRL", "ms_per_update_bare": "bare loop", "faster_cpu": "ours faster",
        "faster_wall": "by wall", "of_bare": "of bare", "start_seconds": "start, CPU s",
        "start_seconds_trl": "TRL ", "peak_share": "of peak",
    }  # fmt: skip
    table = Table(title=f"{title}, medians of {repeats}")
    for heading in shown.values():
        table.add_column(heading, justify="right")
    for row in figures:
        cells = (row[name] for name in shown)
        table.add_row(*(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells))
    Console(width=130).print(table)
    facts = {
        "repeats": repeats,
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "figures": figures,
    }
    out.write_text(json.dumps(facts, indent=1))
