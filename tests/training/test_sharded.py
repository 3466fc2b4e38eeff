"""Trainings whose workers hold shards of one model (FSDP).

accelerate shards on GPUs alone. So that the rest is exercised without one (equally many parts, the
losses, the fused head, what is written), it is told here that two CPUs are such; on a machine with
two GPUs the same runs as it is.
"""

import json
import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from accelerate import state
from accelerate.utils import DistributedType
from forked import run_two
from packed_trainings import (
    KINDS,
    assert_equal,
    first_gradients,
    ours,
    some_pairs,
    start_model,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from weakteach.artifacts.store import Store
from weakteach.models.memory import Fit
from weakteach.models.resources import Resources
from weakteach.training.recipes import Lora
from weakteach.training.worker import train_and_save

# The last number is that of pairs in the update: where it is 1, one worker has none.
CASES = [
    *((kind, None, Fit(shards=2), 15) for kind in KINDS),
    ("sft", Lora(rank=4), Fit(shards=2), 16),
    ("dpo", Lora(rank=4), Fit(True, shards=2), 16),
    ("dpo", None, Fit(True, shards=2), 1),
]
# Trained to their end and written.
WRITTEN = [("sft", None, Fit(shards=2)), ("dpo", Lora(rank=4), Fit(True, shards=2))]
# Trainings whose checkpoint is of the other kind when they go on, and so makes no update less.
CHANGED = [
    (lora, fits)
    for lora in (None, Lora(rank=4))
    for fits in ((Fit(), Fit(shards=2)), (Fit(shards=2), Fit()))
]
FAMILY = "qwen3"


def let_cpus_shard():
    init = state.AcceleratorState.__init__

    def with_cpus(self, *args, fsdp_plugin=None, **options):
        init(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = with_cpus


def forget():
    """What accelerate keeps of the trainer before, and what transformers has told it of shards."""
    state.AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.pop("ACCELERATE_USE_FSDP", None)


def run_worker(rank, port, folder, on_gpu):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        let_cpus_shard()
    backend = "nccl" if on_gpu else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(seconds=240))
    for case, (kind, lora, fit, count) in enumerate(CASES):
        given = (kind, FAMILY, some_pairs()[-count:], lora, folder / str(rank), 16)
        trainer = ours(*given, Resources(train_tokens=80), fit)
        found = first_gradients(trainer)
        weights = trainer.accelerator.get_state_dict(trainer.model)
        torch.save((found, weights), folder / f"{case}-{rank}")
        forget()
    for case, (kind, lora, fit) in enumerate(WRITTEN):
        for attempt in range(2):  # the second goes on from the checkpoint of the first
            run = folder / f"run-{case}"
            trainer = ours(kind, FAMILY, some_pairs(), lora, run, 8, fit=fit)
            stage = folder / f"stage-{case}-{attempt}"
            stage.mkdir(exist_ok=True)
            job = SimpleNamespace(
                resources=Resources(checkpoint_steps=1), progress=None, stage=str(stage),
                store=Store(folder / "store"), run_folder=str(run), saved="bfloat16",
            )  # fmt: skip
            facts = train_and_save(trainer, job)
            (folder / f"facts-{case}-{attempt}-{rank}").write_text(json.dumps(facts))
            forget()
    for case, (lora, fits) in enumerate(CHANGED):
        for fit in fits:
            run, updates = folder / f"changed-{case}", []
            trainer = ours("sft", FAMILY, some_pairs(), lora, run, 8, fit=fit)
            job = SimpleNamespace(
                resources=Resources(checkpoint_steps=1), stage=str(run), store=Store(run),
                progress=lambda done, of: updates.append(done), run_folder=str(run),  # noqa: B023
                saved="float32",
            )  # fmt: skip
            train_and_save(trainer, job)
            forget()
        (folder / f"updates-{case}-{rank}").write_text(json.dumps(updates))
    torch.distributed.destroy_process_group()


def sharded_is_whole(folder, on_gpu):
    run_two(run_worker, folder, on_gpu)
    for case, (kind, lora, _, count) in enumerate(CASES):
        whole = ours(kind, FAMILY, some_pairs()[-count:], lora, folder, 16)
        theirs = first_gradients(whole)
        for rank in range(2):
            (found, loss), weights = torch.load(folder / f"{case}-{rank}", weights_only=True)
            assert_equal((found, loss), on_cpu(theirs))
            if rank == 0:
                kept = on_cpu((whole.model.state_dict(), 0.0))[0]
                assert weights.keys() == kept.keys()
                for name, weight in kept.items():
                    assert torch.equal(weights[name].cpu(), weight), name
    written_is_whole(folder)
    for case in range(len(CHANGED)):
        for rank in range(2):
            assert json.loads((folder / f"updates-{case}-{rank}").read_text()) == [1, 2]


def written_is_whole(folder):
    """At a learning rate of 0: what is written is what training started from, whole weights in the
    dtype that was asked for."""
    start = start_model(FAMILY, "sft").state_dict()
    for attempt in range(2):
        for case, (_, _, fit) in enumerate(WRITTEN):
            assert (folder / f"run-{case}" / "checkpoint-1" / "trainer_state.json").exists()
            for rank in range(2):
                facts = json.loads((folder / f"facts-{case}-{attempt}-{rank}").read_text())
                assert (facts["shards"], facts["devices"], facts["updates"]) == (2, 2, 2)
                assert facts["activation_checkpointing"] == fit.activation_checkpointing
        full = AutoModelForCausalLM.from_pretrained(folder / f"stage-0-{attempt}").state_dict()
        assert full.keys() == start.keys()
        for name, weight in start.items():
            assert torch.equal(full[name].float(), weight.bfloat16().float()), name
        adapters = load_file(folder / f"stage-1-{attempt}" / "adapter_model.safetensors")
        assert {name.rpartition(".lora_")[2] for name in adapters} == {"A.weight", "B.weight"}
        assert {weight.dtype for weight in adapters.values()} == {torch.float32}
        for name, weight in adapters.items():
            assert bool(weight.any()) == name.endswith("lora_A.weight"), name
        assert not (folder / f"stage-1-{attempt}" / "model.safetensors").exists()


def on_cpu(found):
    tensors, loss = found
    return {name: tensor.cpu() for name, tensor in tensors.items()}, loss


def test_shards_have_the_gradients_of_a_whole_model(tmp_path):
    sharded_is_whole(tmp_path, on_gpu=False)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_shards_on_gpus_have_the_gradients_of_a_whole_model(tmp_path):
    sharded_is_whole(tmp_path, on_gpu=True)
