"""Conversations: messages, read from the various ways data sets write them, and transcripts."""

import json
import re
from typing import Any, NoReturn

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"

# ``role`` is system, user, assistant or tool; ``content`` is text. Other fields
# (tool calls, reasoning, names) are kept unchanged unless they are empty.
Message = dict[str, Any]
Messages = list[Message]

ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "ai": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip
REASONING = ("reasoning_content", "reasoning", "thinking")
TURN = re.compile(r"\n\n(Human|Assistant|Tool):")
PYTHON_MESSAGES = re.compile(r"\s*\[\s*\{\s*'(role|content|from|value)'")


class Refusal(Exception):
    """Raised for a row that holds no comparison; it never leaves this package."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def refuse(reason: str, detail: str) -> NoReturn:
    raise Refusal(reason, detail)


def kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def text_or_messages(value: Any, name: str) -> str | Messages:
    """A value read as a text or as messages. Messages may be a list, a single message, a dict of
    columns (lists of one length) or JSON text of a list. Raises Refusal."""
    if isinstance(value, dict) and (value.keys() & {"role", "from"}):
        columns = list(value.values())
        if all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
            value = [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
        else:
            value = [value]
    if isinstance(value, list):
        return [_message(item, name, at) for at, item in enumerate(value)]
    if not isinstance(value, str):
        refuse("not text", f"{name} is {kind(value)}")
    if PYTHON_MESSAGES.match(value):
        refuse("bad messages", f"{name} holds messages as Python prints them; write JSON")
    turns = _turns(value)
    return text_or_messages(turns, name) if turns else value


def is_conversation(text: str) -> bool:
    """Whether a text is messages written as JSON, or as Python prints them."""
    return PYTHON_MESSAGES.match(text) is not None or bool(_turns(text))


def _turns(text: str) -> list[Any]:
    """The messages that a text is as JSON; none if it holds anything else, such as a table of
    people with their roles."""
    if not text.lstrip().startswith("["):
        return []
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return items if all(map(_is_turn, items)) else []


def _is_turn(item: Any) -> bool:
    if not isinstance(item, dict) or not item.keys() & {"content", "value", "tool_calls"}:
        return False
    return _role(item) is not None


def _role(item: dict[Any, Any]) -> str | None:
    written = item.get("role", item.get("from"))
    return ROLES.get(written.strip().casefold()) if isinstance(written, str) else None


def text_list(value: Any, name: str) -> list[str]:
    """A text, a number or a list of these as texts, without blank ones. Raises Refusal for anything
    else that is not empty."""
    if isinstance(value, list):
        return [text for item in value for text in text_list(item, name)]
    if value is None or value != value or value == {}:
        return []
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        refuse("not text", f"{name} is {kind(value)}")
    return [str(value)] if str(value).strip() else []


def _message(item: Any, name: str, at: int) -> Message:
    if not isinstance(item, dict):
        refuse("bad messages", f"{name} holds a message that is {kind(item)}")
    written = item.get("role", item.get("from"))
    role = _role(item)
    if role is None or (role == "system" and at):
        refuse("bad messages", f"{name} holds a message of role {ascii(written)[:40]}")
    more = {k: v for k, v in item.items() if k not in ("role", "from", "content", "value")}
    more = {k: v for k, v in more.items() if v not in (None, [], {}, "")}
    content = item.get("content", item.get("value"))
    if isinstance(content, list):
        content = "".join(_part(part, name) for part in content)
    if content is None and more.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        refuse("not text", f"the content of a message of {name} is {kind(content)}")
    return {"role": role, "content": content, **more}


def _part(part: Any, name: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        what = part.get("type") if isinstance(part, dict) else kind(part)
        refuse("not text", f"a message of {name} holds a part that is {ascii(what)[:40]}")
    return text


def spoken(message: Message) -> str:
    """All that a message says as text: its reasoning, its content and its calls of tools."""
    reasoning = next((message[k] for k in REASONING if isinstance(message.get(k), str)), None)
    lead = f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""
    calls = message.get("tool_calls")
    try:
        called = json.dumps(calls, ensure_ascii=False) if calls else ""
    except (TypeError, ValueError):
        refuse("bad messages", "the tool calls of a message are no JSON")
    parts = (lead + message["content"], called)
    return "\n".join(part for part in parts if part)


def turn(message: Message) -> str:
    if message["role"] == "system":
        return spoken(message)
    marker = {"user": HUMAN, "assistant": ASSISTANT, "tool": "\n\nTool:"}[message["role"]]
    return f"{marker} {spoken(message)}"


def transcript(messages: Messages) -> str:
    """The conversation as HH-RLHF writes it; a system message stands first, as plain text."""
    return "".join(map(turn, messages))


def response_text(messages: Messages) -> str:
    """The transcript of a response's messages, without the ``Assistant:`` that ends the prompt."""
    return transcript(messages).removeprefix(ASSISTANT)


def is_transcript(text: str) -> bool:
    return ASSISTANT in text and (HUMAN in text or text.startswith(HUMAN.strip()))


def dumped(messages: Any) -> str:
    """Messages as JSON text, with question marks for lone surrogates. Raises Refusal if they hold a
    value that JSON cannot express."""
    try:
        return json.dumps(messages, ensure_ascii=False).encode(errors="replace").decode()
    except (TypeError, ValueError, RecursionError):
        refuse("bad messages", "a message holds what is no JSON")


def tools_text(value: Any, name: str) -> str | None:
    """Tools as JSON text, from a list or from JSON text of one; None if there are none. Raises
    Refusal."""
    if not value or (isinstance(value, str) and not value.strip()):
        return None
    tools = value
    if isinstance(value, str):
        try:
            tools = json.loads(value)
        except (ValueError, RecursionError):
            tools = None
    if not isinstance(tools, list):
        refuse("bad messages", f"{name} is no list of tools, nor JSON text of one")
    return dumped(tools) if tools else None


def messages_of(prompt: str) -> Messages:
    """The messages of a prompt that is a transcript ending in ``Assistant:``; any other prompt is a
    single message of the user."""
    text = f"\n\n{prompt}" if prompt.startswith(HUMAN.strip()) else prompt
    if HUMAN not in text or not text.rstrip().endswith(ASSISTANT.strip()):
        return [{"role": "user", "content": prompt.strip()}]
    system, *turns = TURN.split(text)
    spoken = [
        {"role": ROLES[who.lower()], "content": said.strip()}
        for who, said in zip(turns[::2], turns[1::2], strict=True)
    ]
    return [{"role": "system", "content": system.strip()}] * bool(system.strip()) + spoken[:-1]
