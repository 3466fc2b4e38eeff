"""The forms in which reward models read a prompt and a response; a model's card says which it is.

``text`` is what models of this project are trained on (see ``tokens``): the unchanged prompt and
response with EOS, or messages through the chat template. ``chat`` is the conversation through the
chat template; where there are no messages, the conversation is read out of a transcript. ``pair``
is a question and an answer, encoded as the tokenizer's pair of texts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from weakteach.models.spec import ModelError, RewardForm
from weakteach.models.templates import ChatTemplate, Conversation, conversation
from weakteach.models.tokens import load_tokenizer, pair_tokens
from weakteach.preferences.messages import messages_of

# The messages of a prompt, those of a response (None: its text is its only message) and the tools
# that may be called, as JSON; None where there are only texts.
Said = tuple[str, str | None, str | None] | None
# What the tokenizer gives: ids, and whatever else the model reads of each token.
Encoded = dict[str, list[int]]


def load_reward_tokenizer(
    form: RewardForm, folder: str | Path, name: str
) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model. Raises ModelError if the form is ``chat`` and the tokenizer
    has no chat template."""
    if form == "text":
        return load_tokenizer(folder)
    # The other forms bring their own ends, so EOS may be missing.
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    if form == "chat" and not tokenizer.chat_template:
        raise ModelError(
            f"{name} has no chat template, so it cannot be read as chat: give it as pair:{name}, "
            "or without a form if it reads prompt and response as one text"
        )
    return tokenizer


def encode(
    form: RewardForm,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    context: int,
    said: Sequence[Said] = (),
) -> tuple[list[Encoded], list[bool]]:
    """What the model reads of each response, and whether it had to be cut to ``context`` tokens.
    Where ``said`` holds messages, they are read in place of the texts, except in the form ``pair``
    and in the form ``text`` without a chat template."""
    rows = list(zip(prompts, responses, said or [None] * len(prompts), strict=True))
    encoded: list[Encoded]
    if form == "pair":
        encoded = [_pair(tokenizer, prompt, response) for prompt, response, _ in rows]
    else:
        has_template = bool(tokenizer.chat_template)
        by_template = [form == "chat" or (has_template and row[2] is not None) for row in rows]
        chats = [
            _conversation(*row) for row, is_chat in zip(rows, by_template, strict=True) if is_chat
        ]
        texts = [row[:2] for row, is_chat in zip(rows, by_template, strict=True) if not is_chat]
        as_chat = iter(ChatTemplate(tokenizer).ids(chats) if chats else [])
        as_text = iter(_texts(tokenizer, texts))
        encoded = [{"input_ids": next(as_chat if chat else as_text)} for chat in by_template]
    cut = [len(item["input_ids"]) > context for item in encoded]
    for index in (i for i, too_long in enumerate(cut) if too_long):
        if form == "pair":  # the tokenizer knows which marks must stay
            limits = {"truncation": True, "max_length": context}
            encoded[index] = _pair(tokenizer, prompts[index], responses[index], **limits)
        else:
            encoded[index] = {name: ids[:context] for name, ids in encoded[index].items()}
    return encoded, cut


def _texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
    prompts, responses = [p for p, _ in texts], [r for _, r in texts]
    tokens = pair_tokens(tokenizer, prompts, responses, responses)
    return [pair.prompt + pair.response_1 for pair in tokens]


def _conversation(prompt: str, response: str, said: Said) -> Conversation:
    answer = [{"role": "assistant", "content": response.strip()}]
    if said is None:
        return Conversation([*messages_of(prompt), *answer], None, opens=False)
    before, spoken, tools = said
    whole = conversation(tools, before, *([spoken] if spoken else []))
    return whole if spoken else Conversation([*whole.messages, *answer], whole.tools, opens=False)


def _pair(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, **limits: Any) -> Encoded:
    """Question and answer as the tokenizer's pair of texts. The question is the prompt's message if
    it has only one, else the whole prompt."""
    messages = messages_of(prompt)
    question = messages[0]["content"] if len(messages) == 1 else prompt.strip()
    return dict(
        tokenizer(question, response.strip(), verbose=False, split_special_tokens=True, **limits)
    )
