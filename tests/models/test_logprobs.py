import numpy as np
import pytest
import torch
from datasets import Dataset
from families import CONFIGS, LLAMA_LIKE, VOCABULARY, random_model, randomized
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CohereConfig, Gemma2Config, GraniteConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.models import logprobs, target_scores
from weakteach.models.loading import PolicyAndReference
from weakteach.models.logprobs import log_ratios, pair_logprobs
from weakteach.models.pair_layout import lay_out
from weakteach.models.spec import ModelError
from weakteach.models.tiny.pretraining import build_tokenizer
from weakteach.models.tokens import PairTokens, pair_tokens
from weakteach.worlds.world import world_pair

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
    places = range(max(1, len(prompt_ids)), ids.shape[1])
    return float(sum(logits[i - 1, ids[0, i]] for i in places))


def assert_plain(model, tokens, *batch_tokens, attention="sdpa"):
    plain = np.array(
        [[plain_logprob(model, t.prompt, r) for r in (t.response_1, t.response_2)] for t in tokens]
    )
    for size in batch_tokens:
        ours = pair_logprobs(model, tokens, size, attention)
        assert ours.dtype == np.float64
        assert np.abs(ours - plain).max() < 1e-4


# Flex attention computes the same masks, uncompiled and slowly here.
@pytest.mark.parametrize(
    ("family", "attention"),
    [
        *((family, "sdpa") for family in CONFIGS),
        *((family, "flex") for family in ("opt", "gemma3")),
        *(
            pytest.param(family, "flex", marks=pytest.mark.slow)
            for family in CONFIGS
            if family not in ("opt", "gemma3")
        ),
    ],
)
def test_logprobs_equal_the_plain_computation_however_batched(family, attention):
    tokens = pair_tokens(TOKENIZER, *columns(TEXTS))
    assert_plain(random_model(family), tokens, 1, 300, 100_000, attention=attention)


def random_pair(rng, prompt, *responses):
    draw = lambda count: rng.integers(3, VOCABULARY, count).tolist()  # noqa: E731
    return PairTokens(draw(prompt), *map(draw, responses))


VARIANTS = {
    "sliding window": ("mistral", {"sliding_window": 16}),
    "sliding window in one layer": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1,
         "layer_types": None},
    ),
    "local layers": ("gpt-neo", {"window_size": 16}),
    "projected embeddings": ("opt", {"word_embed_proj_dim": 16}),
    "norm after attention": ("opt", {"do_layer_norm_before": False}),
    "parallel residual off": ("pythia", {"use_parallel_residual": False}),
    "one key head": ("gemma", {"num_key_value_heads": 1}),
    "scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_a_family_beyond_their_window(variant, attention):
    family, changes = VARIANTS[variant]
    rng = np.random.default_rng(0)
    shapes = [(40, 30, 20), (5, 60, 1), (0, 33, 50), (17, 2, 2), (90, 9, 40)]
    tokens = [random_pair(rng, *shape) for shape in shapes]
    model = random_model(family, **changes)
    assert_plain(model, tokens, 120, 1000, attention=attention)
    if changes.keys() & {"sliding_window", "window_size"}:  # the window does matter here
        open_window = random_model(family, **dict.fromkeys(changes.keys() & WINDOWS, 500))
        assert np.abs(pair_logprobs(model, tokens, 500) - pair_logprobs(open_window, tokens, 500)
                      ).max() > 0.01  # fmt: skip


WINDOWS = {"sliding_window", "window_size"}


@pytest.mark.parametrize("family", CONFIGS)
def test_responses_up_to_the_last_position_of_the_model(family):
    rng = np.random.default_rng(1)
    tokens = [random_pair(rng, 300, 212, 212), random_pair(rng, 511, 1, 1)]
    assert_plain(random_model(family), tokens, 4000)


IDS = st.lists(st.integers(3, VOCABULARY - 1), max_size=12)
PAIRS = st.builds(
    lambda prompt, shared, first, second: PairTokens(
        prompt, [*shared, *first, 2], [*shared, *second, 2]
    ),
    prompt=IDS, shared=IDS, first=IDS, second=IDS,
)  # fmt: skip


@pytest.mark.parametrize("family", CONFIGS)
@settings(max_examples=15)
@given(pairs=st.lists(PAIRS, min_size=1, max_size=4), batch_tokens=st.integers(1, 200))
@example(pairs=[PairTokens([], [2], [2])], batch_tokens=10)
@example(pairs=[PairTokens([7], [2], [2])], batch_tokens=10)
@example(pairs=[PairTokens([], [5, 2], [6, 2])], batch_tokens=10)
@example(pairs=[PairTokens([7], [5, 2], [5, 5, 2]), PairTokens([], [2], [5, 2])], batch_tokens=99)
def test_logprobs_of_any_pairs_equal_the_plain_computation(family, pairs, batch_tokens):
    assert_plain(random_model(family), pairs, batch_tokens)


def test_no_pairs():
    assert pair_logprobs(random_model("llama"), [], 100).shape == (0, 2)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_head_runs_at_response_tokens_alone_and_in_chunks(family, monkeypatch):
    monkeypatch.setattr(target_scores, "CPU_LOGITS", 7 * VOCABULARY)
    rng = np.random.default_rng(2)
    tokens = [random_pair(rng, 20, 10, 6) for _ in range(5)]
    model, head_rows, widest = random_model(family), [], []
    pair_logprobs(model, tokens[:1], 10_000)  # a first call finds out how the model reads

    class Watch(TorchDispatchMode):
        """The rows of everything as wide as the vocabulary that is computed."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape[-1:] == (VOCABULARY,):
                widest.append(out.numel() // VOCABULARY)
            return out

    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: head_rows.append(inputs[0].numel() // inputs[0].shape[-1])
    )
    with Watch():
        pair_logprobs(model, tokens, 10_000)
    assert sum(head_rows) == 5 * 16
    assert max(head_rows) == 7
    width = model.get_output_embeddings().in_features  # the head's weight, transposed, is as wide
    assert max(rows for rows in widest if rows != width) == 7


def test_the_head_of_a_device_is_read_once_for_hundreds_of_tokens():
    for vocabulary in (50_272, 128_256, 151_936):
        on_cpu, on_gpu = (
            target_scores.chunk_logits(torch.device(kind)) // vocabulary for kind in ("cpu", "cuda")
        )
        assert on_cpu < 90
        assert 400 < on_gpu < 1400


def test_many_small_terms_beside_a_large_one_are_not_lost():
    model, vocabulary = random_model("llama", vocab_size=50_000), 50_000
    model.lm_head = torch.nn.Linear(32, vocabulary)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()[0] = 17.5
    pair = random_pair(np.random.default_rng(5), 10, 60, 40)
    each = -torch.logaddexp(
        torch.tensor(17.5).double(), torch.tensor(vocabulary - 1.0).double().log()
    )
    expected = np.array([[60, 40]]) * float(each)
    assert np.abs(pair_logprobs(model, [pair], 1000) - expected).max() < 5e-4


@pytest.mark.parametrize("family", CONFIGS)
def test_ratios_of_two_models_are_those_of_each_alone(family, monkeypatch):
    """To the last bit; and each batch is laid out once for both."""
    policy, reference = random_model(family), random_model(family)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.mul_(1.1)
    rng = np.random.default_rng(6)
    tokens = [random_pair(rng, 20, 10, 6 + n) for n in range(8)]
    apart = pair_logprobs(policy, tokens, 100) - pair_logprobs(reference, tokens, 100)
    assert np.abs(apart).max() > 0.1
    laid_out = []

    def counted(pairs, *given):
        laid_out.extend(pairs)
        return lay_out(pairs, *given)

    monkeypatch.setattr(logprobs, "lay_out", counted)
    assert np.array_equal(log_ratios(PolicyAndReference(policy, reference), tokens, 100), apart)
    assert len(laid_out) == len(tokens)


def test_attention_is_the_models_own_again_afterwards():
    model, ids = random_model("llama"), torch.arange(3, 40)[None]
    before = model(ids).logits
    pair_logprobs(model, [PairTokens([5], [6], [7])], 10)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(ids).logits, before)


SMALL = {**LLAMA_LIKE, "head_dim": 8}
OTHERS = {
    "softcapped": Gemma2Config(**SMALL, final_logit_softcapping=3.0, sliding_window=16),
    "divided": GraniteConfig(**LLAMA_LIKE, logits_scaling=8.0),
    "multiplied": CohereConfig(**LLAMA_LIKE, logit_scale=0.25),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_logits_are_made_as_each_family_makes_them(kind, caplog):
    rng = np.random.default_rng(3)
    assert_plain(randomized(OTHERS[kind]), [random_pair(rng, 20, 30, 10)], 1, 100)
    told = [r.levelname for r in caplog.records if "read the prompt once for each" in r.message]
    assert told == ["WARNING"] * (kind == "softcapped")  # its attention wants what ours lacks


def test_logits_of_an_unknown_making_are_refused():
    model = randomized(OTHERS["divided"])
    forward = model.forward

    def other(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits + torch.arange(VOCABULARY)
        return out

    model.forward = other
    with pytest.raises(ModelError, match="granite make their logits in a way of their own"):
        pair_logprobs(model, [PairTokens([5], [6], [7])], 10)


def test_bfloat16_weights_sum_in_float32():
    rng = np.random.default_rng(4)
    tokens = [random_pair(rng, 20, 30, 10) for _ in range(4)]
    exact = pair_logprobs(random_model("llama"), tokens, 1000)
    rough = pair_logprobs(random_model("llama").to(torch.bfloat16), tokens, 1000)
    assert 1e-4 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()
    # Sums of bfloat16 would be multiples of 1/2 up here.
    assert np.abs(rough * 2 - np.round(rough * 2)).max() > 1e-3


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


@settings(max_examples=50)
@given(TEXT, TEXT.filter(bool), TEXT.filter(bool))
def test_swapping_the_responses_swaps_their_tokens(prompt, first, second):
    (one,) = pair_tokens(TOKENIZER, [prompt], [first], [second])
    (other,) = pair_tokens(TOKENIZER, [prompt], [second], [first])
    assert one.prompt == other.prompt
    assert (one.response_1, one.response_2) == (other.response_2, other.response_1)
    assert one.response_1[-1] == TOKENIZER.eos_token_id
