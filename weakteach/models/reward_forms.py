"""The forms in which reward models read a prompt and a response, as their cards say.

``text`` is the prompt and the response as they are, with EOS; ``chat`` the model's own chat
template over the conversation; ``pair`` the tokenizer's pair of a question and an answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from weakteach.models.spec import ModelError, RewardForm
from weakteach.models.tokens import load_tokenizer, pair_tokens
from weakteach.preferences.messages import messages_of

# What the tokenizer gives: ids, and whatever else the model reads of each token.
Encoded = dict[str, list[int]]


def load_reward_tokenizer(
    form: RewardForm, folder: str | Path, name: str
) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model. Raises ModelError for a form that it cannot give."""
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
) -> tuple[list[Encoded], list[bool]]:
    """What the model reads of each response, and whether it had to be cut to ``context`` tokens."""
    if form == "text":
        tokens = pair_tokens(tokenizer, prompts, responses, responses)
        encoded: list[Encoded] = [{"input_ids": pair.prompt + pair.response_1} for pair in tokens]
    elif form == "chat":
        encoded = [_chat(tokenizer, *both) for both in zip(prompts, responses, strict=True)]
    else:
        encoded = [_pair(tokenizer, *both) for both in zip(prompts, responses, strict=True)]
    cut = [len(item["input_ids"]) > context for item in encoded]
    for index in (i for i, too_long in enumerate(cut) if too_long):
        if form == "pair":  # the tokenizer knows which marks must stay
            limits = {"truncation": True, "max_length": context}
            encoded[index] = _pair(tokenizer, prompts[index], responses[index], **limits)
        else:
            encoded[index] = {name: ids[:context] for name, ids in encoded[index].items()}
    return encoded, cut


def _chat(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> Encoded:
    answer = {"role": "assistant", "content": response.strip()}
    conversation = [*messages_of(prompt), answer]
    ids: Any = tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=True)
    return {"input_ids": list(ids["input_ids"])}


def _pair(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, **limits: Any) -> Encoded:
    """The question is the user's message, or all of the conversation where there are several."""
    messages = messages_of(prompt)
    question = messages[0]["content"] if len(messages) == 1 else prompt.strip()
    return dict(tokenizer(question, response.strip(), verbose=False, **limits))
