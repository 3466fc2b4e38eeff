"""SFT: TRL's trainer as its user would configure it against ours, and a bare loop, side by side.

    python tests/benchmarks/sft_vs_trl.py --data harmless-base.jsonl.gz

TRL's side has its own tokenization and collator. How the figures are taken: ``vs_trl.py``.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from cyclopts import Parameter
from peft import get_peft_model
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from vs_trl import (
    Run,
    Setting,
    arguments,
    compare,
    job_of,
    operations,
    padded,
    run_bare,
    run_trainer,
    schedule_of,
    settings_of,
    show,
    texts_of,
)

from weakteach.artifacts.store import Store
from weakteach.models.loading import context_length, load_causal, weights_of
from weakteach.models.tokens import PairTokens, load_tokenizer
from weakteach.run.terminal import launch, script
from weakteach.training.recipes import SftRecipe
from weakteach.training.sft import IGNORED, sft_trainer
from weakteach.training.worker import TrainingJob, load_preferences, load_start, lora_config


def trl_trainer(job: TrainingJob) -> SFTTrainer:
    weights = weights_of(job.store, job.start)
    texts = texts_of(job).remove_columns("rejected").rename_column("chosen", "completion")
    return SFTTrainer(
        model=load_causal(weights),
        args=SFTConfig(**arguments(job)),
        train_dataset=texts,
        processing_class=load_tokenizer(weights.base),
        peft_config=lora_config(job.recipe.lora),
    )


def bare(job: TrainingJob, setting: Setting) -> Run:
    model, tokenizer = load_start(job)
    pairs = load_preferences(job, tokenizer, context_length(model))
    trained: Any = (
        get_peft_model(model, config) if (config := lora_config(job.recipe.lora)) else model
    )

    def loss_of(rows: list[int]) -> torch.Tensor:
        both = [(pairs[row].prompt, pairs[row].response_1) for row in rows]
        ids = padded([prompt + response for prompt, response in both])
        scored = padded([[0] * len(p) + [1] * len(r) for p, r in both])
        attended = padded([[1] * len(p + r) for p, r in both])
        labels = ids.masked_fill(scored == 0, IGNORED)
        return trained(input_ids=ids, attention_mask=attended, labels=labels, use_cache=False).loss

    return run_bare(trained, loss_of, len(pairs), setting)


def main(
    data: Annotated[Path | None, Parameter(help="Comparisons, such as HH-RLHF.")] = None,
    models: Annotated[str, Parameter(help="Embedded ones.")] = "opt-230k,opt-1m",
    large: Annotated[str, Parameter(help="The model that is trained on --data.")] = "smollm2-135m",
    batches: Annotated[str, Parameter(help="Pairs of an update on --data.")] = "4,16",
    threads: str = "1,2",
    updates: Annotated[int, Parameter(help="On --data; ten times as many else.")] = 3,
    repeats: int = 3,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("sft_vs_trl.json"),
) -> None:
    """Updates of SFT: ours, TRL's, and those of a bare loop."""
    figures = []
    with tempfile.TemporaryDirectory() as storage:
        store = Store(storage)
        for setting in settings_of(data, models, large, batches, threads, updates):
            job = job_of(store, setting, SftRecipe(schedule_of(setting), lora=setting.lora))
            model, tokenizer = load_start(job)
            pairs = load_preferences(job, tokenizer, context_length(model))
            single = [PairTokens(pair.prompt, pair.response_1, []) for pair in pairs]
            needed = operations(model, single, setting)
            ways: dict[str, Callable[[TrainingJob], Run]] = {
                "weakteach": lambda job: run_trainer(sft_trainer, job),
                "TRL": lambda job: run_trainer(trl_trainer, job),
                "bare loop": partial(bare, setting=setting),
            }
            figures.append(compare(setting, job, ways, needed, repeats))
    show("SFT", figures, repeats, out)


if __name__ == "__main__":
    launch(script(main))
