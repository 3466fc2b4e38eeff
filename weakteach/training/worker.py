"""What every training worker does, whatever the loss: data, model, arguments, saving, resuming."""

import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import ray.train
import torch
from accelerate.utils.constants import FSDP_MODEL_NAME
from peft import LoraConfig, PeftModel
from pyarrow import fs
from ray.train import Checkpoint
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import TrainOutput

from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Progress, Step
from weakteach.artifacts.store import Store
from weakteach.models.loading import Weights, load_causal, weights_of
from weakteach.models.memory import Fit
from weakteach.models.nf4 import load_over_nf4
from weakteach.models.process import prepare_process
from weakteach.models.resources import Resources
from weakteach.models.spec import WEIGHT_FILE_BYTES, Dtype, Model
from weakteach.models.tokens import PairTokens, load_tokenizer, pair_tokens
from weakteach.preferences.pair import messages_in, preference_set
from weakteach.training.local import own_folder
from weakteach.training.recipes import Lora, Schedule
from weakteach.training.stopping import HELD_OUT_LOSS, best_updates, held_out_losses

LOGGER = logging.getLogger(__name__)
TRAINER_STATE = "trainer_state.json"
# The file of weights that only checkpoints of a sharded model have.
SHARDED_MODEL = f"{FSDP_MODEL_NAME}.bin"
# Training goes on while a checkpoint is sent to the storage.
SENT_ASIDE = ray.train.CheckpointUploadMode.ASYNC


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker needs, small enough to send: it fetches data and weights itself.

    Whole weights are written in the dtype ``saved``, adapters as they are trained.

    ``pairs`` and ``labels`` are Parquet files and ``stage`` is the folder for the trained model,
    all on the store's file system. ``run_folder`` is a folder of the trial's host, in which
    training in the trial keeps its checkpoints. ``progress`` is told of each update; it is None
    except in local mode, since it cannot be sent. ``held_out`` are the files of pairs and labels
    that decide when training stops, if the recipe does not.
    """

    store: Store
    start: Model | Step
    pairs: str
    labels: str
    recipe: Any
    seed: int
    dtype: Dtype
    resources: Resources
    stage: str
    run_folder: str
    saved: Dtype = "float32"
    progress: Progress | None = None
    held_out: tuple[str, str] | None = None


def load_start(
    job: TrainingJob, load: Callable[[Weights, str], PreTrainedModel] = load_causal
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that training starts from, and its tokenizer.

    Weights that are trained stay in float32, whatever the dtype of the computation. Weights below
    adapters are frozen and are loaded in that dtype, or in 4 bits, to take less room.
    """
    prepare_process(job.resources.threads)
    weights = weights_of(job.store, job.start)
    tokenizer = load_tokenizer(weights.base)
    lora: Lora | None = job.recipe.lora
    if lora and lora.over_nf4:
        return load_over_nf4(weights, job.dtype), tokenizer
    return load(weights, job.dtype if lora else "float32"), tokenizer


def load_preferences(
    job: TrainingJob, tokenizer: PreTrainedTokenizerBase, context: int
) -> list[PairTokens]:
    """The tokens of the job's preference set, ``response_1`` being the chosen one.

    Raises StepError if there is no pair, or one longer than the model's ``context``.
    """
    filesystem = job.store.filesystem
    pairs = pq.read_table(job.pairs, filesystem=filesystem)
    labels = pq.read_table(job.labels, filesystem=filesystem, columns=["pair_id", "choice"])
    table = preference_set(pairs, labels)
    if not len(table):
        raise StepError("There is no labeled pair to train on")
    prompts, chosen, rejected = (table[c].to_pylist() for c in ("prompt", "chosen", "rejected"))
    messages = messages_in(table, "chosen", "rejected")
    tokens = pair_tokens(tokenizer, prompts, chosen, rejected, messages)
    longest = max(pair.longest for pair in tokens)
    if longest > context:
        raise StepError(f"A pair has {longest} tokens, but the model reads {context} at most")
    return tokens


def label_column(job: TrainingJob, name: str, needed_by: str) -> torch.Tensor:
    """The numbers in the column ``name`` of the job's labels, shape [pairs], in the order of
    ``load_preferences``.

    Raises StepError if the labels have no such column, which ``needed_by`` reads, or if one of its
    values is no finite number.
    """
    filesystem = job.store.filesystem
    if name not in pq.read_schema(job.labels, filesystem=filesystem).names:
        raise StepError(f"{needed_by} needs labels with the column {name}: {job.labels} has none")
    columns = ["pair_id", name]
    table = pq.read_table(job.labels, filesystem=filesystem, columns=columns).sort_by("pair_id")
    values = torch.tensor(table[name].to_numpy(), dtype=torch.float32)
    if wrong := (~torch.isfinite(values)).nonzero().flatten().tolist():
        pair_id = table["pair_id"][wrong[0]].as_py()
        raise StepError(f"The {name} of pair {pair_id} is {values[wrong[0]]}: no finite number")
    return values


def trainer_arguments(job: TrainingJob, schedule: Schedule, fit: Fit) -> dict[str, Any]:
    """Keyword arguments common to TRL's configurations."""
    workers = world_size()
    on_cpu = not torch.accelerator.is_available()
    if on_cpu:  # Ray sets this to the GPU that it was told of, even if there is none
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    return {
        "output_dir": job.run_folder,
        # All of an update's pairs at once; PackedTraining cuts them by tokens.
        "per_device_train_batch_size": schedule.batch // workers,
        "num_train_epochs": schedule.epochs,
        "max_steps": schedule.steps or -1,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.scheduler,
        "warmup_steps": schedule.warmup,
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.clip,
        "seed": job.seed,
        "data_seed": job.seed,
        "bf16": job.dtype == "bfloat16",
        "use_cpu": on_cpu,
        **fit.arguments(),
        "max_length": None,  # pairs are filtered by their tokens before, never cut
        "save_strategy": "no",  # CheckpointNowAndThen says when
        "save_total_limit": 2,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # a NaN is to be seen, not averaged away
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not on_cpu,
        "remove_unused_columns": False,
    }


def lora_config(lora: Lora | None, task: str = "CAUSAL_LM") -> LoraConfig | None:
    """peft's configuration of the adapters; None for none. ``task`` is peft's: a sequence
    classifier's head is trained beside the adapters."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type=task,
    )


def world_size() -> int:
    """Workers of this training; 1 where no group was formed."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def from_all(mine: Any) -> list[Any]:
    """What each worker hands in as ``mine``, in the order of ranks."""
    found = [mine] * world_size()
    if world_size() > 1:
        torch.distributed.all_gather_object(found, mine)
    return found


class CheckpointNowAndThen(TrainerCallback):
    """Saves a checkpoint at regular numbers of updates: ``checkpoint_steps`` or, if that is 0, as
    many as fit in ``checkpoint_minutes``, by the time that the first updates took. All workers save
    after the same updates, by the clock of rank 0."""

    WARM, TIMED = 1, 3

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = resources.checkpoint_steps
        self._seconds = 60 * resources.checkpoint_minutes
        self._clock, self._done, self._started = clock, 0, 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._done += 1
        if self._done == self.WARM:
            self._started = self._clock()
        if not self._every and self._done == self.WARM + self.TIMED:
            an_update = from_all((self._clock() - self._started) / self.TIMED)[0]
            self._every = max(1, math.ceil(self._seconds / max(an_update, 1e-9)))
        if self._every and state.global_step % self._every == 0:
            # The model is written anyway when training ends.
            ends = control.should_training_stop or state.global_step >= state.max_steps
            control.should_save = not ends


class ReportProgress(TrainerCallback):
    """Logs metrics, stops at a loss that is not finite, and, in a group of workers, hands metrics
    and checkpoints to Ray Train. In local mode Ray Train takes none inside a Tune trial: there a
    new attempt goes on from the trainer's own checkpoints."""

    def __init__(self, in_group: bool, progress: Progress | None) -> None:
        self._in_group = in_group
        self._progress = progress

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._progress:
            self._progress(state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        LOGGER.info("update %d of %d: %s", state.global_step, state.max_steps, logs)
        _require_finite(logs.get("loss", 0.0), state)
        if self._in_group:  # it waits its turn behind a checkpoint that is still being sent
            ray.train.report(logs, checkpoint_upload_mode=SENT_ASIDE)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not self._in_group:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        metrics = {key: value for row in state.log_history for key, value in row.items()}
        if rank() > 0:
            shutil.rmtree(folder)  # nothing reads it
        checkpoint = Checkpoint.from_directory(folder) if rank() == 0 else None
        # Ray Train deletes this local folder once it is sent.
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_upload_mode=SENT_ASIDE)


def train_and_save(trainer: Trainer, job: TrainingJob, merge: bool = False) -> dict[str, Any]:
    """Train from the last checkpoint, if there is one. Rank 0 writes model and metrics to the
    stage; adapters are written alone or, with ``merge``, merged into a whole model. Returns facts
    for the record, among them how the training was made to fit."""
    trainer.remove_callback(PrinterCallback)
    train_in_float32(trainer)
    in_group = job.resources.train_workers > 0
    trainer.add_callback(CheckpointNowAndThen(job.resources))
    trainer.add_callback(ReportProgress(in_group, job.progress))
    if in_group:
        trained = _train_in_group(trainer)
    else:
        trained = _train_from(trainer, _last_complete(Path(job.run_folder)))
    _require_finite(trained.training_loss, trainer.state)
    history = [row for row in trainer.state.log_history if "loss" in row or HELD_OUT_LOSS in row]
    sharded = trainer.is_fsdp_enabled
    # All workers take part, to give their shards.
    state = trainer.accelerator.get_state_dict(trainer.model) if sharded else {}
    if rank() == 0:
        with tempfile.TemporaryDirectory() as folder:
            model = trainer.accelerator.unwrap_model(trainer.model)
            saved = getattr(torch, job.saved)
            if merge and isinstance(model, PeftModel):
                if saved == torch.float32:  # the sum would be rounded to the dtype of the base
                    torch.nn.Module.to(model, dtype=saved)
                model = model.merge_and_unload()
            if not isinstance(model, PeftModel):
                if not sharded:
                    torch.nn.Module.to(model, dtype=saved)
                state = {name: weight.to(saved) for name, weight in state.items()}
            given = {"state_dict": state} if sharded else {}
            model.save_pretrained(folder, max_shard_size=WEIGHT_FILE_BYTES, **given)
            cast(PreTrainedTokenizerBase, trainer.processing_class).save_pretrained(folder)
            lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in history)
            Path(folder, "metrics.jsonl").write_text(lines)
            fs.copy_files(folder, job.stage, destination_filesystem=job.store.filesystem)
    losses = [row["loss"] for row in history if "loss" in row]
    held_out = held_out_losses(trainer.state.log_history)
    return {
        **({"best_updates": best_updates(held_out)} if held_out else {}),
        "pairs": len(trainer.train_dataset),  # type: ignore[arg-type]
        "updates": trainer.state.global_step,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "devices": world_size(),
        "shards": world_size() if sharded else 1,
        "activation_checkpointing": trainer.args.activation_checkpointing,
    }


def train_in_float32(trainer: Trainer) -> None:
    """Cast trained weights from bfloat16 to float32. TRL casts adapters over a base in 4 bits to
    bfloat16, in which small updates are lost."""
    for parameter in trainer.model.parameters():  # type: ignore[union-attr]
        if parameter.requires_grad and parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()


def _train_in_group(trainer: Trainer) -> TrainOutput:
    """Train from the checkpoint that Ray Train has for all workers: what workers find on their own
    hosts may be of different updates."""
    with own_folder() as own, ExitStack() as stack:
        shutil.rmtree(str(trainer.args.output_dir), ignore_errors=True)
        trainer.args.output_dir = str(own)
        trainer.args.save_total_limit = None  # Ray Train deletes what was sent; keep all else
        checkpoint = ray.train.get_checkpoint()
        folder = stack.enter_context(checkpoint.as_directory()) if checkpoint else None
        trained = _train_from(trainer, folder)
        # Wait: the last one may still be being sent from the folder, which is deleted next.
        ray.train.get_all_reported_checkpoints(ray.train.CheckpointConsistencyMode.COMMITTED)
        return trained


def _train_from(trainer: Trainer, folder: str | None) -> TrainOutput:
    """Train from the checkpoint in ``folder``, if there is one. Each try finds its fit anew, and a
    whole model does not go on from a checkpoint of shards, nor shards from one of a whole model:
    then training begins anew."""
    shards = trainer.is_fsdp_enabled
    if folder and Path(folder, SHARDED_MODEL).exists() != shards:
        LOGGER.warning(
            "the checkpoint is ignored, and training begins anew: the model is %s, and was %s",
            *("sharded", "whole")[:: 1 if shards else -1],
        )
        folder = None
    return trainer.train(resume_from_checkpoint=folder)


def _require_finite(loss: float, state: TrainerState) -> None:
    if not math.isfinite(loss):
        raise StepError(
            f"The loss is {loss} at update {state.global_step}: lower the learning rate, or check "
            "the weights that training starts from"
        )


def _last_complete(run_folder: Path) -> str | None:
    """The latest checkpoint that was written to its end; the trainer's state is its last file."""
    steps = [
        (int(folder.name.split("-")[-1]), folder)
        for folder in run_folder.glob("checkpoint-*")
        if (folder / TRAINER_STATE).exists()
    ]
    return str(max(steps)[1]) if steps else None
