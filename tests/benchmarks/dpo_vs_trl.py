"""DPO: TRL's trainer as its user would configure it against ours, and a bare loop, side by side.

    python tests/benchmarks/dpo_vs_trl.py --data harmless-base.jsonl.gz

TRL's side has its own tokenization and collator and computes its reference once. How the figures
are taken: ``vs_trl.py``.
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
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
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
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.tokens import load_tokenizer
from weakteach.run.terminal import launch, script
from weakteach.training.dpo import dpo_trainer
from weakteach.training.recipes import DpoRecipe
from weakteach.training.worker import TrainingJob, load_preferences, load_start, lora_config


def trl_trainer(job: TrainingJob) -> DPOTrainer:
    weights = weights_of(job.store, job.start)
    return DPOTrainer(
        model=load_causal(weights),
        ref_model=None if job.recipe.lora else load_causal(weights),
        args=DPOConfig(**arguments(job), beta=job.recipe.beta, precompute_ref_log_probs=True),
        train_dataset=texts_of(job),
        processing_class=load_tokenizer(weights.base),
        peft_config=lora_config(job.recipe.lora),
    )


def bare(job: TrainingJob, setting: Setting) -> Run:
    model, tokenizer = load_start(job)
    pairs = load_preferences(job, tokenizer, context_length(model))
    count = job.recipe.schedule.steps * setting.batch
    reference = torch.tensor(pair_logprobs(model, pairs[:count], 4096)).float()
    pairs = pairs[:count]
    trained: Any = (
        get_peft_model(model, config) if (config := lora_config(job.recipe.lora)) else model
    )

    def loss_of(rows: list[int]) -> torch.Tensor:
        both = [(pairs[row].prompt, r) for row in rows
                for r in (pairs[row].response_1, pairs[row].response_2)]  # fmt: skip
        ids = padded([prompt + response for prompt, response in both])
        scored = padded([[0] * len(p) + [1] * len(r) for p, r in both])[:, 1:]
        attended = padded([[1] * len(p + r) for p, r in both])
        logits = trained(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, :-1]
        tokens = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0] * scored
        ratios = tokens.sum(1).view(-1, 2) - reference[rows]
        margins = job.recipe.beta * (ratios[:, 0] - ratios[:, 1])
        return -torch.nn.functional.logsigmoid(margins).mean()

    return run_bare(trained, loss_of, len(pairs), setting)


def main(
    data: Annotated[Path | None, Parameter(help="Comparisons, such as HH-RLHF.")] = None,
    models: Annotated[str, Parameter(help="Embedded ones.")] = "opt-230k,opt-1m",
    large: Annotated[str, Parameter(help="The model that is trained on --data.")] = "smollm2-135m",
    batches: Annotated[str, Parameter(help="Pairs of an update on --data.")] = "4,16",
    threads: str = "1,2",
    updates: Annotated[int, Parameter(help="On --data; ten times as many else.")] = 3,
    repeats: int = 3,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("dpo_vs_trl.json"),
) -> None:
    """Updates of DPO: ours, TRL's, and those of a bare loop."""
    figures = []
    with tempfile.TemporaryDirectory() as storage:
        store = Store(storage)
        for setting in settings_of(data, models, large, batches, threads, updates):
            job = job_of(store, setting, DpoRecipe(schedule_of(setting), lora=setting.lora))
            model, tokenizer = load_start(job)
            pairs = load_preferences(job, tokenizer, context_length(model))
            needed = operations(model, pairs, setting)
            ways: dict[str, Callable[[TrainingJob], Run]] = {
                "weakteach": lambda job: run_trainer(dpo_trainer, job),
                "TRL": lambda job: run_trainer(trl_trainer, job),
                "bare loop": partial(bare, setting=setting),
            }
            figures.append(compare(setting, job, ways, needed, repeats))
    show("DPO", figures, repeats, out)


if __name__ == "__main__":
    launch(script(main))
