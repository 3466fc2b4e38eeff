"""DPO with the reference's log-probabilities computed once, against TRL running it in each step.

    python tests/benchmarks/dpo_reference.py --model opt-230k

Both sides are whole trainings as a user pays for them: loading, tokenization, the reference pass
where there is one, updates. They take turns, repeat by repeat; figures are medians.
"""

import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pyarrow.parquet as pq
import torch
import typer
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.resources import Resources
from weakteach.models.spec import Model, find_model, tokenizer_of
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.pair import preference_set
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import Pairs, labels_file
from weakteach.steps.labels import HumanLabels
from weakteach.training.dpo import dpo_trainer
from weakteach.training.recipes import DpoRecipe, Lora, Schedule
from weakteach.training.worker import TrainingJob, lora_config, trainer_arguments


@dataclass(frozen=True)
class Run:
    wall: float
    cpu: float
    losses: list[float]


def ours(job: TrainingJob) -> Any:
    return dpo_trainer(job)


def trl(job: TrainingJob) -> Any:
    """TRL's trainer as it comes, on texts, with the same arguments."""
    weights = weights_of(job.store, job.start)
    pairs, labels = pq.read_table(job.pairs), pq.read_table(job.labels)
    table = preference_set(pairs, labels.select(["pair_id", "choice"]))
    names = ("prompt", "chosen", "rejected")
    return DPOTrainer(
        model=load_causal(weights),
        ref_model=None if job.recipe.lora else load_causal(weights),
        args=DPOConfig(
            **trainer_arguments(job, job.recipe.schedule),
            beta=job.recipe.beta,
            loss_type=["sigmoid"],
        ),
        train_dataset=Dataset.from_dict({name: table[name].to_pylist() for name in names}),
        processing_class=load_tokenizer(weights.base),
        peft_config=lora_config(job.recipe.lora),
    )


def run(build: Any, job: TrainingJob) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        trainer = build(replace(job, run_folder=folder))
        trainer.args.logging_steps = 1
        trainer.args.save_strategy = "no"
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(wall, cpu, [row["loss"] for row in trainer.state.log_history if "loss" in row])


def job_of(store: Store, model: Model, pairs: int, recipe: DpoRecipe) -> TrainingJob:
    world = Pairs(WorldSource(pairs), (tokenizer_of(model),))
    labels = HumanLabels(world.all)
    for step in (world, labels):
        obtain(store, step, Resources())
    return TrainingJob(
        store=store,
        start=model,
        pairs=labels.part.file(store),
        labels=labels_file(store, labels),
        recipe=recipe,
        seed=0,
        dtype="float32",
        resources=Resources(),
        stage="",
        run_folder="",
    )


def main(
    model: Annotated[str, typer.Option(help="The student.")] = "opt-230k",
    pairs: int = 256,
    epochs: float = 3,
    batch: int = 16,
    repeats: int = 3,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = Path("dpo_reference.json"),
) -> None:
    """Student DPO: the reference once, against the reference in each step."""
    torch.set_num_threads(1)
    schedule = Schedule(5e-4, batch=batch, epochs=epochs)
    figures = []
    with tempfile.TemporaryDirectory() as storage:
        for name, lora in (("full", None), ("LoRA", Lora())):
            recipe = DpoRecipe(schedule, lora=lora)
            job = job_of(Store(storage), find_model(model), pairs, recipe)
            runs: dict[Any, list[Run]] = {ours: [], trl: []}
            for build in runs:  # warm: one update each
                run(
                    build, replace(job, recipe=replace(recipe, schedule=replace(schedule, steps=1)))
                )
            for _ in range(repeats):
                for build, done in runs.items():
                    done.append(run(build, job))
            wall, cpu = (
                {build: median(getattr(r, unit) for r in done) for build, done in runs.items()}
                for unit in ("wall", "cpu")
            )
            losses = zip(runs[ours][0].losses, runs[trl][0].losses, strict=True)
            figures.append(
                {
                    "training": name,
                    "updates": len(runs[ours][0].losses),
                    "seconds": wall[ours],
                    "seconds_trl": wall[trl],
                    "cpu_seconds": cpu[ours],
                    "cpu_seconds_trl": cpu[trl],
                    "faster_wall": wall[trl] / wall[ours],
                    "faster_cpu": cpu[trl] / cpu[ours],
                    "max_loss_difference": max(abs(a - b) for a, b in losses),
                }
            )
    table = Table(title=f"DPO of {model}: {pairs} pairs, {epochs:g} epochs, batch {batch}")
    for column in figures[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in figures:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*cells)
    Console(width=120).print(table)
    facts = {"model": model, "pairs": pairs, "epochs": epochs, "batch": batch, "repeats": repeats}
    out.write_text(json.dumps({**facts, "figures": figures}, indent=1))


if __name__ == "__main__":
    typer.run(main)
