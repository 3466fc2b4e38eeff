import numpy as np
import pytest
import torch
from datasets import Dataset
from families import CONFIGS, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.models.embedded import build_tokenizer
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.tokens import pair_tokens
from weakteach.preferences.world import world_pair

TOKENIZER = build_tokenizer()
TEXTS = [
    *((p.prompt, p.response_1, p.response_2) for p in (world_pair(5, i) for i in range(12))),
    ("", "alone.", "no prompt."),
    ("\n\nHuman: naïve café?\n\nAssistant:", " é", " a much longer answer, word by word."),
]


def columns(texts):
    return [list(column) for column in zip(*texts, strict=True)]


def plain_logprob(model, prompt_ids, response_ids):
    """One sequence, unpadded, full logits: what the words mean."""
    ids = torch.tensor([prompt_ids + response_ids])
    with torch.no_grad():
        logits = model(ids).logits[0].double().log_softmax(-1)
    places = range(len(prompt_ids), ids.shape[1])
    return float(sum(logits[i - 1, ids[0, i]] for i in places))


@pytest.mark.parametrize("family", CONFIGS)
def test_logprobs_equal_the_plain_computation_however_batched(family):
    model, tokens = random_model(family), pair_tokens(TOKENIZER, *columns(TEXTS))
    plain = np.array(
        [[plain_logprob(model, t.prompt, r) for r in (t.response_1, t.response_2)] for t in tokens]
    )
    for batch_tokens in (1, 300, 100_000):
        assert np.abs(pair_logprobs(model, tokens, batch_tokens) - plain).max() < 1e-4


@pytest.mark.parametrize("family", CONFIGS)
def test_logprobs_equal_those_of_the_trainer_on_raw_texts(family, tmp_path):
    model = random_model(family)
    prompts, chosen, rejected = columns(TEXTS[:8])
    trainer = DPOTrainer(
        model=model,
        ref_model=random_model(family),
        args=DPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=3,
            max_length=None,
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            gradient_checkpointing=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict(
            {"prompt": prompts, "chosen": chosen, "rejected": rejected}
        ),
        processing_class=TOKENIZER,
    )
    theirs = []
    for rows in torch.arange(8).split(3):
        batch = trainer.data_collator([trainer.train_dataset[int(i)] for i in rows])
        theirs.append(torch.stack(trainer.compute_ref_log_probs(trainer.ref_model, batch), dim=1))
    ours = pair_logprobs(model, pair_tokens(TOKENIZER, prompts, chosen, rejected), 500)
    assert np.abs(ours - torch.cat(theirs).double().numpy()).max() < 1e-4


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=50, deadline=None)
@given(TEXT, TEXT.filter(bool), TEXT.filter(bool))
def test_swapping_the_responses_swaps_their_tokens(prompt, first, second):
    (one,) = pair_tokens(TOKENIZER, [prompt], [first], [second])
    (other,) = pair_tokens(TOKENIZER, [prompt], [second], [first])
    assert one.prompt == other.prompt
    assert (one.response_1, one.response_2) == (other.response_2, other.response_1)
    assert one.response_1[-1] == TOKENIZER.eos_token_id
