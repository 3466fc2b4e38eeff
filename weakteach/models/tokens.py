"""THE tokenization: SFT, DPO, reward heads, labeling and generation all see the same ids.

It follows the rule of TRL's DPO trainer. Prompt and prompt + response are tokenized as whole texts,
since tokens may merge across their border. The prompt's ids are those that all these sequences
share at the front; a response's ids are those that follow.

A pair that has messages is read through the model's chat template, which writes all special tokens,
including the end of a response. Where the model has no template, or the pair has no messages, the
pair's texts are read unchanged, and EOS ends a response. Whatever looks like a special token within
a text is read as plain text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from weakteach.models.templates import ChatTemplate, Conversation, Unreadable, conversation
from weakteach.preferences.pair import MessagesOf, Pair

# The messages of a prompt and the tools that may be called, as JSON.
PromptMessages = tuple[str, str | None]
BLOCK = 64


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

    @cached_property
    def shared(self) -> int:
        """Tokens that the two responses have in common at the front."""
        return _common_prefix(self.response_1, self.response_2)


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
    messages: Sequence[MessagesOf | None] = (),
) -> list[PairTokens]:
    """Ids of many pairs; swapping the responses of a pair swaps their ids and nothing else.

    ``messages`` holds each pair's messages, or None for a pair of texts; if it is empty, all pairs
    are texts. Raises Unreadable where the chat template refuses a pair, renders both responses
    alike, or renders a response as nothing.
    """
    rows = list(messages) if tokenizer.chat_template else []
    rows += [None] * (len(prompts) - len(rows))
    texts = [at for at, row in enumerate(rows) if row is None]
    chats = [(at, row) for at, row in enumerate(rows) if row is not None]
    found: dict[int, PairTokens] = {}
    if texts:
        eos = tokenizer.eos_token_id
        whole = [[prompts[at] + side[at] for at in texts] for side in (responses_1, responses_2)]
        alone = prompt_tokens(tokenizer, [prompts[at] for at in texts])
        both = (_ids(tokenizer, side) for side in whole)
        for at, prompt, first, second in zip(texts, alone, *both, strict=True):
            cut = _cut(prompt, first, second)
            ends = _ended(first[cut:], eos), _ended(second[cut:], eos)
            found[at] = PairTokens(prompt[:cut], *ends)
    if chats:
        template = ChatTemplate(tokenizer)
        read = template.ids([one for _, row in chats for one in _conversations(row)])
        for (at, _), prompt, first, second in zip(
            chats, read[::3], read[1::3], read[2::3], strict=True
        ):
            cut = _cut(prompt, first, second)
            if first == second or cut in (len(first), len(second)):
                shown = "both responses alike" if first == second else "a response as nothing"
                raise Unreadable(f"the chat template of {template.name} shows {shown}")
            found[at] = PairTokens(prompt[:cut], first[cut:], second[cut:])
    return [found[at] for at in range(len(prompts))]


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    messages: Sequence[PromptMessages | None] = (),
) -> list[list[int]]:
    """Ids of prompts, each ready for a response to be generated. Raises Unreadable where the chat
    template refuses a prompt."""
    rows = list(messages) if tokenizer.chat_template else []
    rows += [None] * (len(prompts) - len(rows))
    texts = [prompt for prompt, row in zip(prompts, rows, strict=True) if row is None]
    chats = [conversation(tools, said, opens=True) for said, tools in filter(None, rows)]
    eos = tokenizer.eos_token_id
    as_text = iter([_unended(ids, eos) for ids in _ids(tokenizer, texts)] if texts else [])
    as_chat = iter(ChatTemplate(tokenizer).ids(chats) if chats else [])
    return [next(as_text if row is None else as_chat) for row in rows]


def pair_lengths(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[int | str]:
    """Tokens of the longer sequence of each pair, or why the model cannot read it."""
    try:
        tokens = pair_tokens(
            tokenizer,
            [pair.prompt for pair in pairs],
            [pair.response_1 for pair in pairs],
            [pair.response_2 for pair in pairs],
            [pair.messages for pair in pairs],
        )
        return [pair.longest for pair in tokens]
    except Unreadable as error:
        if len(pairs) == 1:
            return [str(error)]
    return [pair_lengths(tokenizer, [pair])[0] for pair in pairs]


def _conversations(pair: MessagesOf) -> list[Conversation]:
    """Three conversations: the prompt, open for a response, and the prompt with each response."""
    return [
        conversation(pair.tools, pair.prompt, opens=True),
        conversation(pair.tools, pair.prompt, pair.first),
        conversation(pair.tools, pair.prompt, pair.second),
    ]


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return tokenizer(
        texts,
        return_attention_mask=False,
        return_token_type_ids=False,
        split_special_tokens=True,
        verbose=False,
    )["input_ids"]


def _cut(prompt: list[int], first: list[int], second: list[int]) -> int:
    """How many leading ids the prompt shares with both sequences."""
    return min(_common_prefix(prompt, first), _common_prefix(prompt, second))


def _ended(ids: list[int], eos: int) -> list[int]:
    return ids if ids and ids[-1] == eos else [*ids, eos]


def _unended(ids: list[int], eos: int) -> list[int]:
    """The ids without the EOS that some tokenizers append. A lone id is kept: it is BOS, which may
    be the same token as EOS."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == eos else ids


def _common_prefix(a: list[int], b: list[int]) -> int:
    """How many leading ids both lists share. Whole blocks are compared at once, for speed."""
    most, at = min(len(a), len(b)), 0
    while at < most and a[at : at + BLOCK] == b[at : at + BLOCK]:
        at += BLOCK
    return next((n for n in range(at, min(at + BLOCK, most)) if a[n] != b[n]), most)


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of sequences in batches of similar length, shortest first.

    A batch holds at most ``batch_tokens`` tokens, padding included; a longer sequence is a batch of
    its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > batch_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
