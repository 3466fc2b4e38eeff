"""THE tokenization: SFT, DPO, labeling and generation all see the same ids.

It is the rule of TRL's DPO trainer. Prompt and prompt + response are tokenized as whole texts,
since tokens may merge across their border; the prompt's ids are what all of them have in common
at the front, each response's ids are what follows, and EOS ends a response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairTokens:
    """Token ids of one pair; ``prompt`` has the BOS that the tokenizer puts there, if any."""

    prompt: list[int]
    response_1: list[int]
    response_2: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt) + max(len(self.response_1), len(self.response_2))

    @property
    def total(self) -> int:
        """Tokens of the prompt and both responses."""
        return len(self.prompt) + len(self.response_1) + len(self.response_2)


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; EOS stands in for a pad token that is missing.

    Raises ValueError if it has no EOS, without which no response could end.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"The tokenizer in {folder} has no EOS token, so no response can end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pair_tokens(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses_1: Sequence[str],
    responses_2: Sequence[str],
) -> list[PairTokens]:
    """Ids of many pairs; swapping the responses of a pair swaps their ids and nothing else."""
    if not prompts:
        return []
    alone = prompt_tokens(tokenizer, prompts)
    with_1 = _ids(tokenizer, [p + r for p, r in zip(prompts, responses_1, strict=True)])
    with_2 = _ids(tokenizer, [p + r for p, r in zip(prompts, responses_2, strict=True)])
    eos = tokenizer.eos_token_id
    pairs = []
    for prompt, first, second in zip(alone, with_1, with_2, strict=True):
        cut = min(_common_prefix(prompt, first), _common_prefix(prompt, second))
        pairs.append(PairTokens(prompt[:cut], _ended(first[cut:], eos), _ended(second[cut:], eos)))
    return pairs


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Ids of prompts from which a response is to be generated."""
    eos = tokenizer.eos_token_id
    return [_unended(ids, eos) for ids in _ids(tokenizer, list(prompts))]


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return tokenizer(
        texts, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]


def _ended(ids: list[int], eos: int) -> list[int]:
    return ids if ids and ids[-1] == eos else [*ids, eos]


def _unended(ids: list[int], eos: int) -> list[int]:
    """Without the EOS that some tokenizers put at the end; a lone id is BOS, which may be EOS."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == eos else ids


def _common_prefix(a: list[int], b: list[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, shortest first.

    A batch holds at most ``batch_tokens`` tokens with padding; one longer sequence stands alone.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
