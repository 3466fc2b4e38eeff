"""The forms in which an input row may hold a comparison; one function reads them all."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from weakteach.preferences.pair import Comparison, DataError, Quarantined

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"

OWN_FORM = ("prompt", "response_1", "response_2")
TRL_FORM = ("chosen", "rejected")
COLUMNS = (*OWN_FORM, "choice", *TRL_FORM)
FORMS = (
    "prompt, response_1, response_2 and if known choice (1 or 2); "
    "or prompt, chosen, rejected; or chosen, rejected"
)

Row = Comparison | Quarantined

# A conversation as (role, content), the system message first if there is one.
Messages = list[tuple[str, str]]

PYTHON_MESSAGES = re.compile(r"\s*\[\s*\{\s*'(role|content)'")


class _Refusal(Exception):
    """A row that holds no comparison; stays inside this module."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def row_comparison(row: Mapping[str, Any], place: str) -> Row:
    """The comparison that a row holds in one of the accepted forms, or why there is none.

    The forms, in this order: ``prompt, response_1, response_2`` with an optional ``choice``;
    TRL's ``prompt, chosen, rejected``; TRL's ``chosen, rejected`` with the prompt inside both.
    In TRL's forms the values may be texts, lists of messages, or such lists as JSON texts.
    Raises nothing for any row.
    """
    try:
        if _is_own_form(row):
            prompt, first, second = (_text(row, name) for name in OWN_FORM)
            return Comparison(place, prompt, first, second, _choice(row.get("choice")))
        if row.keys() >= set(TRL_FORM):
            return Comparison(place, *_trl_texts(row), preferred=1)
        _refuse("missing columns", f"found {_names(row)}; accepted: {FORMS}")
    except _Refusal as refusal:
        return Quarantined(place, refusal.reason, refusal.detail)


def require_columns(columns: Iterable[str], where: str) -> None:
    """Raises DataError when no row of a table with these columns can hold a comparison."""
    found = list(columns)
    if not (set(found) >= set(OWN_FORM) or set(found) >= set(TRL_FORM)):
        raise DataError(
            f"{where} cannot hold pairs: its columns are {_names(found)}. "
            f"Rename them to one of the accepted forms: {FORMS}."
        )


def _refuse(reason: str, detail: str) -> NoReturn:
    raise _Refusal(reason, detail)


def _names(columns: Iterable[Any]) -> str:
    names = [ascii(name) for name in columns]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "none") + more


def _is_own_form(row: Mapping[str, Any]) -> bool:
    if not row.keys() >= set(OWN_FORM):
        return False
    # A table that mixes forms has the columns of all, and nulls in those of the other form.
    has_responses = row["response_1"] is not None or row["response_2"] is not None
    return has_responses or not row.keys() >= set(TRL_FORM)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        _refuse("not text", f"{name} is {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _choice(value: Any) -> int | None:
    """1, 2 or None; a CSV cell holds it as text, a nullable column may hold it as a float."""
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "" or text != text:
        return None
    if not isinstance(text, bool) and text in (1, 2, "1", "2", "1.0", "2.0"):
        return int(float(text))
    _refuse("bad choice", f"{ascii(text)[:40]} is neither 1 nor 2")


def _trl_texts(row: Mapping[str, Any]) -> tuple[str, str, str]:
    prompt = _text_or_messages(row, "prompt") if row.get("prompt") is not None else None
    chosen = _text_or_messages(row, "chosen")
    rejected = _text_or_messages(row, "rejected")
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _from_messages(_conversation(prompt, chosen), _conversation(prompt, rejected))
    if not (isinstance(chosen, str) and isinstance(rejected, str)) or isinstance(prompt, list):
        _refuse("not text", "some of prompt, chosen and rejected are texts, others messages")
    if prompt is not None:
        return prompt, chosen, rejected
    if _is_transcript(chosen) or _is_transcript(rejected):
        return _from_transcripts(chosen, rejected)
    if "prompt" in row:
        _refuse("not text", "prompt is null")
    return _from_texts(chosen, rejected)


def _text_or_messages(row: Mapping[str, Any], name: str) -> str | Messages:
    value = row[name]
    if isinstance(value, list):
        return _messages(value, name)
    text = _text(row, name)
    if not text.lstrip().startswith("["):
        return text
    if PYTHON_MESSAGES.match(text):
        _refuse("bad messages", f"{name} holds messages as Python prints them; write JSON")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return text
    is_conversation = items and all(isinstance(item, dict) and "role" in item for item in items)
    return _messages(items, name) if is_conversation else text


def _messages(items: list[Any], name: str) -> Messages:
    messages: Messages = []
    for item in items:
        if not isinstance(item, dict):
            _refuse("bad messages", f"{name} holds a message that is {_kind(item)}")
        role, content = item.get("role"), item.get("content")
        if not isinstance(content, str):
            _refuse("not text", f"the content of a message of {name} is {_kind(content)}")
        if role not in ("user", "assistant") and (role != "system" or messages):
            _refuse("bad messages", f"{name} holds a message of role {ascii(role)[:40]}")
        messages.append((role, content))
    return messages


def _conversation(prompt: str | Messages | None, messages: Messages) -> Messages:
    """The whole conversation: the messages may or may not repeat the prompt before them."""
    if prompt is None:
        return messages
    if isinstance(prompt, str):
        if any(content == prompt for _, content in messages[:-1]):
            return messages
        prompt = [("user", prompt)]
    return messages if messages[: len(prompt)] == prompt else prompt + messages


def _from_messages(chosen: Messages, rejected: Messages) -> tuple[str, str, str]:
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if not messages or messages[-1][0] != "assistant":
            _refuse("bad messages", f"{name} does not end with an assistant's message")
    if chosen[:-1] != rejected[:-1] or len(chosen) == 1:
        _refuse("no common prompt", "the messages before the last one differ, or there are none")
    prompt = "".join(_turn(role, content) for role, content in chosen[:-1]) + ASSISTANT
    return prompt, " " + chosen[-1][1], " " + rejected[-1][1]


def _turn(role: str, content: str) -> str:
    if role == "system":
        return content
    return f"{HUMAN if role == 'user' else ASSISTANT} {content}"


def _is_transcript(text: str) -> bool:
    return ASSISTANT in text and (HUMAN in text or text.startswith(HUMAN.strip()))


def _from_transcripts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Cut two transcripts after their last ``Assistant:``, which must follow equal histories."""
    history, chosen_marker, response_1 = chosen.rpartition(ASSISTANT)
    other_history, rejected_marker, response_2 = rejected.rpartition(ASSISTANT)
    if not chosen_marker or not rejected_marker:
        _refuse("no common prompt", "only one of the two is a transcript")
    if HUMAN in response_1 or HUMAN in response_2:
        _refuse("no common prompt", "a transcript ends with a Human turn")
    if history != other_history:
        _refuse("no common prompt", "the transcripts differ before their last Assistant turn")
    return history + ASSISTANT, response_1, response_2


def _from_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Cut two texts after the whole words that both begin with.

    One space before the cut goes to the responses, as tokenizers join it to the next word.
    """
    if chosen == rejected:
        _refuse("equal responses", "chosen and rejected are the same text")
    differs = (
        at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if len(set(pair)) > 1
    )
    common = chosen[: next(differs, min(len(chosen), len(rejected)))]
    following = (chosen[len(common) :], rejected[len(common) :])
    if any(rest and not rest[0].isspace() for rest in following):
        common = re.sub(r"\S+\Z", "", common)
    cut = len(common.removesuffix(" "))
    if not common.strip():
        _refuse("no common prompt", "chosen and rejected do not begin with the same word")
    return chosen[:cut], chosen[cut:], rejected[cut:]
