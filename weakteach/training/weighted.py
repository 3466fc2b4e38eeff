"""For users of TRL, without a store: DPO's losses on preferences that count as they weigh."""

from copy import copy

import torch
from datasets import Dataset
from peft import PeftConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig

from weakteach.models.logprobs import pair_logprobs
from weakteach.models.resources import Resources
from weakteach.models.tokens import pair_tokens
from weakteach.preferences.pair import DataError
from weakteach.training.dpo import PackedDpoTrainer, check_weights

COLUMNS = ("prompt", "chosen", "rejected", "weight")


def weighted_dpo_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    preferences: Dataset,
    args: DPOConfig,
    peft_config: PeftConfig | None = None,
    resources: Resources | None = None,
) -> PackedDpoTrainer:
    """TRL's DPO trainer, whose loss of an update is Σ w·l / Σ w over its pairs, l being the loss of
    a pair by the ``loss_type`` of ``args``.

    ``preferences`` has the columns ``prompt``, ``chosen``, ``rejected`` (texts) and ``weight`` (a
    number from 0), one row a pair. An update takes ``args.per_device_train_batch_size`` pairs on
    each worker, which go through the model in parts of ``resources.train_tokens`` tokens. The
    model as it is given is the reference. Raises DataError for a column that is missing or holds
    something else, and for gradient accumulation, which those parts take the place of.
    """
    if missing := [name for name in COLUMNS if name not in preferences.column_names]:
        raise DataError(f"No column {', '.join(missing)} among {preferences.column_names}")
    if args.gradient_accumulation_steps > 1:
        raise DataError("Give all pairs of an update as per_device_train_batch_size")
    texts = [preferences[name] for name in COLUMNS[:3]]
    if not all(isinstance(text, str) for column in texts for text in column):
        raise DataError("Prompts and responses are texts here: apply the chat template before")
    tokens = pair_tokens(tokenizer, *(list(column) for column in texts))
    resources = resources or Resources()
    ours = copy(args)
    ours.precompute_ref_log_probs, ours.remove_unused_columns, ours.max_length = True, False, None
    reference = pair_logprobs(model, tokens, resources.batch_tokens, resources.attention)
    trainer = PackedDpoTrainer(
        tokens,
        resources,
        model=model,
        args=ours,
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    trainer.reference = torch.tensor(reference, dtype=torch.float32)
    trainer.weights = check_weights(torch.tensor(preferences["weight"][:], dtype=torch.float32))
    trainer.use_weighting = True
    return trainer
