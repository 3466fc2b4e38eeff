"""Conversations as a model's own chat template writes them.

As in TRL, the text that a template writes is tokenized without the special tokens that a tokenizer
adds by itself, since the template writes them. Three things differ from TRL. The text of a system
turn that a template refuses or leaves out is put at the front of the first user turn. And whatever
looks like a special token within a message (an end of turn, say) is read as text and not obeyed,
unless it is a thinking tag. Templates that write the day's date see the same day always.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from weakteach.preferences.messages import Messages

# Private characters: one that no message holds is put on both sides of a masked token's number.
MARKS = range(0xF0000, 0xFFFFE)
PROBE = "weakteach-probe"
# Llama 3.2 writes this day where it is told none. With the day on which a step runs, its tokens
# would follow from more than its fingerprint.
TODAY = datetime(2024, 7, 26)
CODES = (*"aAbBcdDeFGhHIjmMpRSTuUVwWxXyYzZ", *(f"-{code}" for code in "dmyHIMSj"), "%")
SHOWN = json.dumps({f"%{code}": TODAY.strftime(f"%{code}") for code in CODES})
# Put before a template, in place of the function that transformers gives it. A function of ours
# cannot be handed over: a template gets plain data alone.
CLOCK = (
    "{% macro strftime_now(format) %}{% set text = namespace(of=format) %}"
    f"{{% for code, shown in {SHOWN}.items() %}}"
    "{% set text.of = text.of | replace(code, shown) %}{% endfor %}{{ text.of }}{% endmacro %}\n"
)


class Unreadable(ValueError):
    """A conversation that the model's chat template refuses, or a pair whose responses it renders
    alike or as nothing."""


@dataclass(frozen=True)
class Conversation:
    """Messages and the tools that may be called in them. If it ``opens``, its text ends where the
    assistant is to speak."""

    messages: Messages
    tools: list[Any] | None
    opens: bool


def conversation(tools: str | None, *messages: str, opens: bool = False) -> Conversation:
    """The conversation of several lists of messages, one after the other, and of tools, which are
    all given as JSON texts."""
    return Conversation(
        [message for part in messages for message in json.loads(part)],
        json.loads(tools) if tools else None,
        opens,
    )


class ChatTemplate:
    """The chat template of a tokenizer, which must have one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.name = Path(tokenizer.name_or_path).name or type(tokenizer).__name__

    def ids(self, conversations: list[Conversation]) -> list[list[int]]:
        """Token ids of each conversation. Raises Unreadable."""
        found: list[list[int]] = [[] for _ in conversations]
        plain: dict[int, str] = {}
        for at, one in enumerate(conversations):
            masked, mark, literals = self._masked(one)
            text = self._written(self._fitted(masked.messages), masked.tools, masked.opens)
            if literals:
                found[at] = self._joined(text, mark, literals)
            else:
                plain[at] = text
        if plain:
            for at, ids in zip(plain, self._read(list(plain.values())), strict=True):
                found[at] = ids
        return found

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template shows a system turn."""
        user = {"role": "user", "content": "."}
        try:
            shown = self._written([{"role": "system", "content": PROBE}, user], None, False)
        except Unreadable:
            return False
        return PROBE in shown

    @cached_property
    def turn_end(self) -> int | None:
        """The special token by which the template ends an assistant's turn; None if it writes none
        there."""
        said = [{"role": "user", "content": "."}, {"role": "assistant", "content": PROBE}]
        after = self._written(said, None, False).rpartition(PROBE)[2]
        end = self._special.search(after)
        return cast(int, self.tokenizer.convert_tokens_to_ids(end[0])) if end else None

    def _fitted(self, messages: Messages) -> Messages:
        if not messages or messages[0]["role"] != "system" or self.takes_system:
            return messages
        system, *others = messages
        user = next((at for at, one in enumerate(others) if one["role"] == "user"), None)
        if user is None:
            raise Unreadable(
                f"the chat template of {self.name} takes no system turn, and there is no user's "
                "turn to put it before"
            )
        content = f"{system['content']}\n\n{others[user]['content']}"
        return [*others[:user], {**others[user], "content": content}, *others[user + 1 :]]

    def _written(self, messages: Messages, tools: list[Any] | None, opens: bool) -> str:
        try:
            text: Any = self.tokenizer.apply_chat_template(
                messages,
                tools=tools,
                tokenize=False,
                add_generation_prompt=opens,
                chat_template=CLOCK + self.tokenizer.get_chat_template(tools=tools),
            )
        except Exception as error:  # the template is a program of others
            raise Unreadable(f"the chat template of {self.name} refuses it: {error}") from error
        return str(text)

    def _read(self, texts: list[str], split_special_tokens: bool = False) -> list[list[int]]:
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=split_special_tokens,
            verbose=False,
        )["input_ids"]

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Matches special tokens, the longest first, but not thinking tags, which are the model's
        own in messages."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {*self.tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        kept = sorted((n for n in names if "think" not in n.casefold()), key=lambda n: -len(n))
        return re.compile("|".join(map(re.escape, kept)) or r"(?!)")

    def _masked(self, one: Conversation) -> tuple[Conversation, str, list[str]]:
        """The conversation with each special token in its texts replaced by a number between two
        marks, the mark, and the replaced tokens in the order of their numbers."""
        whole = json.dumps([one.messages, one.tools], ensure_ascii=False)
        literals: list[str] = []
        mark = next(chr(code) for code in MARKS if chr(code) not in whole)

        def number(found: re.Match[str]) -> str:
            literals.append(found[0])
            return f"{mark}{len(literals) - 1}{mark}"

        def masked(value: Any) -> Any:
            if isinstance(value, str):
                return self._special.sub(number, value)
            if isinstance(value, list):
                return [masked(item) for item in value]
            if isinstance(value, dict):
                return {masked(k): v if k == "role" else masked(v) for k, v in value.items()}
            return value

        return Conversation(masked(one.messages), masked(one.tools), one.opens), mark, literals

    def _joined(self, text: str, mark: str, literals: list[str]) -> list[int]:
        """Token ids of a masked text. It is cut at the literals, as a tokenizer cuts a text at
        special tokens, and the literals are read as plain text."""
        ids: list[int] = []
        for at, piece in enumerate(re.split(f"{mark}(\\d+){mark}", text)):
            if at % 2:
                ids += self._read([literals[int(piece)]], split_special_tokens=True)[0]
            elif piece:
                ids += self._read([piece])[0]
        return ids
