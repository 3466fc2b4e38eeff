"""The embedded models, and the recipe that pretrains them on documents of the embedded domains.

They are real models of six architectures, tiny enough to pretrain on a laptop; three of OPT's are
small enough to ship.

Every size and architecture reads the same documents in the same order, so that neither is
confounded with pretraining.
"""

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GenerationConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from weakteach.models.tiny.family import DOCUMENTS, tiny_model
from weakteach.worlds.domains import DOMAINS, MARKERS, VOCABULARY, pretraining_document

MAX_TOKENS = 512


@dataclass(frozen=True)
class PretrainingRecipe:
    """What all sizes share: one pass of AdamW, linear warm-up, cosine decay to zero."""

    batch_documents: int = 16
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def lr_share(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step of `steps`."""
        warmup = min(self.warmup_steps, steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


RECIPE = PretrainingRecipe()

HELD_OUT_DOCUMENTS = 512
"""How many documents after the last trained one the recorded held-out loss is measured on."""

# ---- Tokenizer ----------------------------------------------------------------------------------

_SPECIALS = ("<s>", "<pad>", "</s>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of all embedded models: one token for every word of the domains, and one for
    every byte of any other text.

    Any text comes back exactly: `decode(encode(text, add_special_tokens=False)) == text`. Like
    OPT's, it sets `</s>` (id 2) before every text and nothing after it, and pads with `<pad>`
    (id 1). As with OPT, the literal "</s>" within a text is read as that token unless the call
    says `split_special_tokens=True`; trainers rely on it to end texts.
    """
    # Bytes and words in the alphabet of byte-level BPE, in which every byte is a visible character.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [to_bytes.pre_tokenize_str(piece)[0][0] for piece in VOCABULARY]
    pieces = dict.fromkeys((*_SPECIALS, *words, *alphabet))
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    # Without merges, a piece of text is a token if it is in the vocabulary and is bytes otherwise.
    tokenizer = Tokenizer(BPE(vocabulary, merges=[], ignore_merges=True))
    markers = "|".join(re.escape(marker.strip()) for marker in MARKERS)
    candidate = Regex(rf"\n\n(?:{markers})| ?[a-z]+| ?[^a-z\s]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(candidate, behavior="isolated"), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


# ---- Model --------------------------------------------------------------------------------------


def build_model(name: str, seed: int) -> PreTrainedModel:
    """An untrained model, its weights drawn from the seed; torch's global seed is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(model_config(name))


def model_config(name: str) -> PreTrainedConfig:
    """The configuration of an embedded model. All have tied embeddings, no dropout and about
    12·hidden² weights in a layer; the rest is what sets the architecture apart."""
    model = tiny_model(name)
    size = model.size
    std: dict[str, Any] = {"initializer_range": size.init_std}
    shape: dict[str, Any] = {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }
    shared: dict[str, Any] = {
        "vocab_size": len(build_tokenizer()),
        "max_position_embeddings": MAX_TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    # A gated layer has three matrices where others have two.
    gated = {**shape, **std, **shared, "intermediate_size": round(8 * size.hidden / 3)}
    match model.architecture:
        case "opt":
            return OPTConfig(
                **shape,
                **shared,
                word_embed_proj_dim=size.hidden,
                ffn_dim=4 * size.hidden,
                init_std=size.init_std,
                dropout=0.0,
                attention_dropout=0.0,
                layerdrop=0.0,
            )
        case "llama":
            return LlamaConfig(**gated)
        case "mistral":  # two queries share a key, so the other matrices may be wider
            grouped: dict[str, Any] = {
                "num_key_value_heads": size.heads // 2,
                "intermediate_size": 3 * size.hidden,
            }
            return MistralConfig(**{**gated, **grouped})
        case "gemma":
            heads: dict[str, Any] = {
                "num_key_value_heads": size.heads,
                "head_dim": size.hidden // size.heads,
            }
            return GemmaConfig(**gated, **heads)
        case "pythia":
            return GPTNeoXConfig(**shape, **std, **shared, intermediate_size=4 * size.hidden)
        case _:
            layers: dict[str, Any] = {"num_layers": size.layers, "num_heads": size.heads}
            kinds = [[["global", "local"], size.layers // 2], [["global"], size.layers % 2]]
            return GPTNeoConfig(
                **std, **shared, **layers, hidden_size=size.hidden, attention_types=kinds
            )


def parameter_count(model: PreTrainedModel) -> int:
    """The number of weights, without the position embeddings."""
    positions = ("embed_positions", "wpe")
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        if not any(part in positions for part in name.split("."))
    )


# ---- Pretraining --------------------------------------------------------------------------------


Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and labels, each (documents, tokens). Padding is on the right and labeled -100; as
attention is causal, no document sees it, so no attention mask is needed."""


def document_batches(documents: range, seed: int) -> Iterator[list[Batch]]:
    """The domains' documents at these indices, in batches of the recipe's size.

    Each batch comes in two parts, its shorter and its longer documents, for less padding. A
    document stands between two `</s>`.
    """
    tokenizer = build_tokenizer()
    for start in range(0, len(documents), RECIPE.batch_documents):
        indices = documents[start : start + RECIPE.batch_documents]
        texts = [pretraining_document(seed, index) for index in indices]
        rows = [torch.tensor([*ids, 2]) for ids in tokenizer(texts)["input_ids"]]
        rows.sort(key=len)
        half = len(rows) // 2
        yield [_padded(part) for part in (rows[:half], rows[half:]) if part]


def _padded(rows: list[torch.Tensor]) -> Batch:
    ids, labels = (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        for padding in (1, -100)
    )
    return ids, labels


def _predicted(labels: torch.Tensor) -> int:
    """How many tokens the loss over these labels is averaged over."""
    return int((labels[:, 1:] != -100).sum())


def training_losses(
    model: PreTrainedModel, name: str, documents: int, seed: int
) -> Iterator[float]:
    """Train a model in place, yielding the mean loss per token (in nats) of every step.

    The learning-rate schedule spans `documents` documents, even if the caller stops early.
    """
    peak_lr = tiny_model(name).size.peak_lr
    steps = math.ceil(documents / RECIPE.batch_documents)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak_lr, betas=RECIPE.betas, weight_decay=RECIPE.weight_decay
    )
    model.train()
    for step, batch in enumerate(document_batches(range(documents), seed)):
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * RECIPE.lr_share(step, steps)
        optimizer.zero_grad(set_to_none=True)
        tokens = sum(_predicted(labels) for _, labels in batch)
        mean = 0.0
        for ids, labels in batch:
            loss = model(input_ids=ids, labels=labels).loss * (_predicted(labels) / tokens)
            loss.backward()
            mean += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip_norm)
        optimizer.step()
        yield mean


def held_out_documents(domain: str, documents: int) -> range:
    """Indices of a domain's documents among the `HELD_OUT_DOCUMENTS` after the last trained one."""
    offset = list(DOMAINS).index(domain)
    first = next(
        i for i in range(documents, documents + len(DOMAINS)) if i % len(DOMAINS) == offset
    )
    return range(first, documents + HELD_OUT_DOCUMENTS, len(DOMAINS))


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, documents: range, seed: int) -> float:
    """The mean loss per token (in nats) on the documents at these indices, which must not have been
    trained on."""
    model.eval()
    total, tokens = 0.0, 0
    for ids, labels in chain.from_iterable(document_batches(documents, seed)):
        count = _predicted(labels)
        total += model(input_ids=ids, labels=labels).loss.item() * count
        tokens += count
    return total / tokens


OnStep = Callable[[int, int, float], None]
"""Told the number of steps done, the number of all steps and the loss."""


def pretrained(
    name: str, documents: int, seed: int, on_step: OnStep | None = None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A pretrained embedded model and the record of its training.

    On one machine, the same arguments and number of threads give the same weights. Raises
    ValueError for an unknown name or less than one document.
    """
    if documents < 1:
        raise ValueError(f"pretraining needs at least one document, not {documents}")
    model = build_model(name, seed)
    steps = math.ceil(documents / RECIPE.batch_documents)
    losses: list[float] = []
    for loss in training_losses(model, name, documents, seed):
        losses.append(loss)
        if on_step is not None:
            on_step(len(losses), steps, loss)
    last = losses[-200:]
    return model, {
        "model": {"name": name, **asdict(tiny_model(name))},
        "recipe": asdict(RECIPE),
        "documents": documents,
        "seed": seed,
        "parameters": parameter_count(model),
        "first_losses": losses[:50],
        "final_loss": sum(last) / len(last),
        "held_out_losses": {
            domain: held_out_loss(model, held_out_documents(domain, documents), seed)
            for domain in DOMAINS
        },
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }


def write_model(model: PreTrainedModel, record: dict[str, Any], folder: Path) -> None:
    """Write a pretrained model, the tokenizer and the record as a model folder."""
    model.generation_config = GenerationConfig(bos_token_id=2, eos_token_id=2, pad_token_id=1)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    (folder / "pretrain.json").write_text(json.dumps(record, indent=2) + "\n")


def pretrain(
    name: str,
    out: Path,
    documents: int = DOCUMENTS,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> None:
    """Pretrain an embedded model into the folder `out`, whole or not at all.

    Raises what `pretrained` raises, and FileExistsError, before any work, if `out` exists and is
    not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} already exists: choose another folder or remove it first")
    model, record = pretrained(name, documents, seed, on_step)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / out.name
        write_model(model, record, folder)
        folder.rename(out)
