"""Trainings that read each prompt once, and TRL's on the same pairs, with the gradients of both."""

import os
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from families import CONFIGS, VOCABULARY, random_model
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from weakteach.models.loading import no_dropout
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.memory import Fit
from weakteach.models.process import prepare_process
from weakteach.models.resources import Resources
from weakteach.models.tiny.pretraining import build_tokenizer
from weakteach.models.tokens import PairTokens
from weakteach.training.dpo import PackedDpoTrainer
from weakteach.training.recipes import Schedule
from weakteach.training.reward_head import PackedRewardTrainer
from weakteach.training.sft import IGNORED, PackedSftTrainer
from weakteach.training.worker import lora_config, trainer_arguments

KINDS = ("sft", "dpo", "reward")
EOS = 2
HERE = Resources()
WHOLE = Fit()
TOKENIZER = build_tokenizer()


prepare_process(threads=1)


def some_pairs(count=16):
    """Of many shapes: without prompt, of one token, with a common beginning, equal in length."""
    generator = torch.Generator().manual_seed(7)

    def draw(most, least=0):
        size = int(torch.randint(least, most, (1,), generator=generator))
        return torch.randint(3, VOCABULARY, (size,), generator=generator).tolist()

    pairs = [
        PairTokens([], [5, 6, EOS], [7, EOS]),
        PairTokens([9, 8, 7], [EOS], [5, EOS]),
        PairTokens([9, 8], [5, EOS], [EOS]),
        PairTokens([], [EOS], [11, EOS]),
        PairTokens([4], [5, 6, 7, EOS], [5, 6, 8, 9, EOS]),
    ]
    while len(pairs) < count:
        shared = draw(4)
        pairs.append(PairTokens(draw(30), [*shared, *draw(20), EOS], [*shared, *draw(20), EOS]))
    return pairs


def start_model(family, kind):
    """Without dropout, as weakteach loads models; adapters of TRL's and ours are drawn alike."""
    model = random_model(family, **no_dropout(CONFIGS[family]))
    if kind != "reward":
        return model
    torch.manual_seed(0)
    model.config.num_labels = 1
    head = AutoModelForSequenceClassification.from_config(model.config)
    head.base_model.load_state_dict(model.base_model.state_dict())
    return head.eval()


def arguments(folder, batch, resources=HERE, fit=WHOLE):
    job = SimpleNamespace(run_folder=str(folder), seed=3, resources=resources, dtype="float32")
    return trainer_arguments(job, Schedule(0.0, batch=batch), fit)


def ours(kind, family, pairs, lora, folder, batch, resources=HERE, fit=WHOLE):
    model, tokenizer = start_model(family, kind), TOKENIZER
    options = {"model": model, "processing_class": tokenizer}
    given = arguments(folder, batch, resources, fit)
    torch.manual_seed(1)
    if kind == "sft":
        single = [PairTokens(pair.prompt, pair.response_1, []) for pair in pairs]
        return PackedSftTrainer(
            single, resources, args=SFTConfig(**given), peft_config=lora_config(lora), **options
        )
    if kind == "reward":
        config = lora_config(lora, task="SEQ_CLS")
        return PackedRewardTrainer(
            pairs, resources, args=RewardConfig(**given), peft_config=config, **options
        )
    reference = torch.tensor(pair_logprobs(model, pairs, 4096), dtype=torch.float32)
    trainer = PackedDpoTrainer(
        pairs,
        resources,
        args=DPOConfig(**given, beta=0.5, precompute_ref_log_probs=True),
        peft_config=lora_config(lora),
        **options,
    )
    trainer.reference = reference
    return trainer


class Tokenized(DPOTrainer):
    """TRL's trainer on tokens: no text stands for pairs without prompt or of one token."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


def stock(kind, family, pairs, lora, folder, batch, accumulated=1):
    given = arguments(folder, batch)
    given["per_device_train_batch_size"] //= accumulated
    given["gradient_accumulation_steps"] = accumulated
    options = {"model": start_model(family, kind), "processing_class": TOKENIZER}
    torch.manual_seed(1)
    if kind == "sft":
        data = {
            "input_ids": [pair.prompt + pair.response_1 for pair in pairs],
            "labels": [[IGNORED] * len(pair.prompt) + pair.response_1 for pair in pairs],
        }
        return SFTTrainer(
            args=SFTConfig(**given),
            train_dataset=Dataset.from_dict(data),
            peft_config=lora_config(lora),
            **options,
        )
    if kind == "reward":
        data = {
            "chosen_ids": [pair.prompt + pair.response_1 for pair in pairs],
            "rejected_ids": [pair.prompt + pair.response_2 for pair in pairs],
        }
        return RewardTrainer(
            args=RewardConfig(**given),
            train_dataset=Dataset.from_dict(data),
            peft_config=lora_config(lora, task="SEQ_CLS"),
            **options,
        )
    data = {
        "prompt_ids": [pair.prompt for pair in pairs],
        "chosen_ids": [pair.response_1 for pair in pairs],
        "rejected_ids": [pair.response_2 for pair in pairs],
    }
    return Tokenized(
        args=DPOConfig(**given, beta=0.5),
        ref_model=None if lora else start_model(family, kind),
        train_dataset=Dataset.from_dict(data),
        peft_config=lora_config(lora),
        **options,
    )


def disturb(trainer):
    """Away from the reference, where DPO's gradients are no longer those of an equal choice, and
    from the zeros that adapters start with."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def put_together(gradient):
    """Where it is in shards."""
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()


def first_gradients(trainer, moved=None):
    """Those that the optimizer's first step finds, before they are clipped, and the logged loss.

    ``moved`` is a weight (parameter, flat place) and how far it is moved before.
    """
    found = {}
    disturb(trainer)
    if moved:
        name, place, step = moved
        with torch.no_grad():
            dict(trainer.model.named_parameters())[name].flatten()[place] += step
    trainer.args.max_grad_norm = 0
    trainer.args.max_steps = trainer.args.logging_steps = 1
    create = trainer.create_optimizer

    def watched(*args, **options):
        optimizer = create(*args, **options)
        optimizer.register_step_pre_hook(
            lambda *_: found.update(
                (name, put_together(parameter.grad))
                for name, parameter in trainer.model.named_parameters()
                if parameter.grad is not None
            )
        )
        return optimizer

    trainer.create_optimizer = watched
    trainer.train()
    return found, next(row["loss"] for row in trainer.state.log_history if "loss" in row)


def assert_equal(one, other):
    (ours, our_loss), (theirs, their_loss) = one, other
    assert our_loss == pytest.approx(their_loss, abs=1e-5)
    assert ours.keys() == theirs.keys()
    assert max(float(g.abs().max()) for g in theirs.values()) > 1e-3
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() < 1e-5 * max(1, float(gradient.abs().max())), (
            name
        )


@contextmanager
def in_group(rank, port):
    """One of two workers on this machine."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=120))
    yield
    torch.distributed.destroy_process_group()
