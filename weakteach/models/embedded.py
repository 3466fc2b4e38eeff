"""The tiny OPT family: real `OPTForCausalLM` models of the embedded world, small enough to ship,
and the recipe that pretrains them.

Every size is pretrained on the same documents in the same order, so that size and pretraining are
not confounded.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import GenerationConfig, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from weakteach.models.family import tiny_opt
from weakteach.preferences.world import pretraining_document
from weakteach.preferences.world_words import WORLD_VOCABULARY

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
    """The family's tokenizer: a token for every word of the world, and else one for every byte.

    Any text comes back exactly: `decode(encode(text, add_special_tokens=False)) == text`. Like
    OPT's, it sets `</s>` (id 2) before every text and nothing after it, and pads with `<pad>`
    (id 1). As with OPT, the literal "</s>" within a text is read as that token unless the call
    says `split_special_tokens=True`; trainers rely on it to end texts.
    """
    # Bytes and words in the alphabet of byte-level BPE, in which every byte is a visible character.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = [to_bytes.pre_tokenize_str(piece)[0][0] for piece in WORLD_VOCABULARY]
    pieces = dict.fromkeys((*_SPECIALS, *words, *alphabet))
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    # Without merges, a piece of text is a token if it is in the vocabulary and is bytes otherwise.
    tokenizer = Tokenizer(BPE(vocabulary, merges=[], ignore_merges=True))
    candidate = Regex(r"\n\n(?:Human|Assistant):| ?[a-z]+| ?[^a-z\s]")
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


def build_model(name: str, seed: int) -> OPTForCausalLM:
    """An untrained model, its weights drawn from the seed without touching torch's global one."""
    size = tiny_opt(name)
    config = OPTConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=size.hidden,
        word_embed_proj_dim=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        ffn_dim=4 * size.hidden,
        max_position_embeddings=MAX_TOKENS,
        init_std=size.init_std,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        tie_word_embeddings=True,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OPTForCausalLM(config)


def parameter_count(model: OPTForCausalLM) -> int:
    """The number of weights, without the position embeddings."""
    return sum(p.numel() for name, p in model.named_parameters() if "embed_positions" not in name)


# ---- Pretraining --------------------------------------------------------------------------------


def document_batches(documents: range, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of the world's documents at these indices: token ids and labels, (batch, tokens).

    A document stands between two `</s>`. Padding is on the right and labeled -100; as attention
    is causal, no document sees it, so no attention mask is needed.
    """
    tokenizer = build_tokenizer()
    for start in range(documents.start, documents.stop, RECIPE.batch_documents):
        indices = range(start, min(start + RECIPE.batch_documents, documents.stop))
        texts = [pretraining_document(seed, index) for index in indices]
        rows = [torch.tensor([*ids, 2]) for ids in tokenizer(texts)["input_ids"]]
        yield (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1),
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100),
        )


def training_losses(model: OPTForCausalLM, name: str, documents: int, seed: int) -> Iterator[float]:
    """Train a model in place, yielding the mean loss per token (in nats) of every step.

    The schedule is that of `documents` documents; a caller may stop early.
    """
    size = tiny_opt(name)
    steps = math.ceil(documents / RECIPE.batch_documents)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=size.peak_lr, betas=RECIPE.betas, weight_decay=RECIPE.weight_decay
    )
    model.train()
    for step, (ids, labels) in enumerate(document_batches(range(documents), seed)):
        for group in optimizer.param_groups:
            group["lr"] = size.peak_lr * RECIPE.lr_share(step, steps)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip_norm)
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def held_out_loss(model: OPTForCausalLM, documents: range, seed: int) -> float:
    """The mean loss per token (in nats) on documents; the indices must not have been trained on."""
    model.eval()
    total, tokens = 0.0, 0
    for ids, labels in document_batches(documents, seed):
        count = int((labels[:, 1:] != -100).sum())
        total += model(input_ids=ids, labels=labels).loss.item() * count
        tokens += count
    return total / tokens


def pretrain(
    name: str,
    out: Path,
    documents: int = 65536,
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Pretrain a size of the family and write it as a model folder at `out`, whole or not at all.

    The same weights come out on one machine with the same number of threads. `on_step` is told the
    number of steps done, the number of all steps and the loss. ValueError for an unknown name or
    less than one document; FileExistsError, before any work, if `out` exists and is not an empty
    folder.
    """
    if documents < 1:
        raise ValueError(f"pretraining needs at least one document, not {documents}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} already exists: choose another folder or remove it first")
    model = build_model(name, seed)
    steps = math.ceil(documents / RECIPE.batch_documents)
    losses: list[float] = []
    for loss in training_losses(model, name, documents, seed):
        losses.append(loss)
        if on_step is not None:
            on_step(len(losses), steps, loss)
    last = losses[-200:]
    held_out = range(documents, documents + HELD_OUT_DOCUMENTS)
    record = {
        "model": asdict(tiny_opt(name)),
        "recipe": asdict(RECIPE),
        "documents": documents,
        "seed": seed,
        "parameters": parameter_count(model),
        "first_losses": losses[:50],
        "final_loss": sum(last) / len(last),
        "held_out_loss": held_out_loss(model, held_out, seed),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    _write_folder(model, record, out)


def _write_folder(model: OPTForCausalLM, record: dict[str, object], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(bos_token_id=2, eos_token_id=2, pad_token_id=1)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / out.name
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        (folder / "pretrain.json").write_text(json.dumps(record, indent=2) + "\n")
        folder.rename(out)
