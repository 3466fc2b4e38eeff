"""Where the prompt ends and the responses begin, in messages, transcripts and plain texts."""

import re

from weakteach.preferences.messages import (
    ASSISTANT,
    HUMAN,
    TURN,
    Messages,
    dumped,
    refuse,
    response_text,
    transcript,
)
from weakteach.preferences.pair import MessagesOf

Texts = tuple[str, ...]


def from_messages(
    prompt: str | Messages | None, ends: Texts, system: str, first: Messages, second: Messages
) -> tuple[tuple[str, str, str], MessagesOf]:
    """The texts and messages of two responses to a prompt, which they may repeat. ``ends`` are
    texts that belong after the prompt."""
    found = [_conversation(prompt, ends, messages) for messages in (first, second)]
    wholes = [whole for whole, _ in found]
    for whole in wholes:
        if not whole or whole[-1]["role"] != "assistant":
            refuse("bad messages", "a response does not end with an assistant's message")
    cuts = [_cut(whole, end) for whole, end in found]
    histories = [whole[:cut] for whole, cut in zip(wholes, cuts, strict=True)]
    if histories[0] != histories[1] or not histories[0]:
        refuse("no common prompt", "the messages before the responses differ, or there are none")
    one, two = (whole[cut:] for whole, cut in zip(wholes, cuts, strict=True))
    return from_parts(histories[0], system, one, two)


def from_parts(
    history: Messages, system: str, one: Messages, two: Messages
) -> tuple[tuple[str, str, str], MessagesOf]:
    """The texts and messages of conversations that are cut already, and not empty."""
    if system and history[0]["role"] != "system":
        history = [{"role": "system", "content": system}, *history]
    texts = (transcript(history) + ASSISTANT, response_text(one), response_text(two))
    return texts, MessagesOf(dumped(history), dumped(one), dumped(two))


def _cut(whole: Messages, end: int) -> int:
    """The index at which the response begins: at the ``end`` of the prompt's messages if an
    assistant's message follows them, else at the last message. If ``end`` is 0, the calls of tools
    that lead to the last message belong to the response, too."""
    if 0 < end < len(whole):
        return end if whole[end]["role"] == "assistant" else len(whole) - 1
    cut = len(whole) - 1
    while cut >= 2 and whole[cut - 1]["role"] == "tool":
        cut -= 1
        while cut and whole[cut]["role"] == "tool":
            cut -= 1
    return cut


def _conversation(
    prompt: str | Messages | None, ends: Texts, messages: Messages
) -> tuple[Messages, int]:
    """The whole conversation, whether or not the messages repeat the prompt, and where the prompt
    ends in it: 0 if it is a text or holds an answer of its own. Raises Refusal if the messages ask
    something else than the prompt."""
    if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
        return messages, 0
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    (lead, asked), (own_lead, said) = _without_system(turns), _without_system(messages)
    if lead and own_lead and not _alike(lead, own_lead):
        refuse("no common prompt", "the system turns of prompt and response differ")
    lead = own_lead or lead
    is_cut = isinstance(prompt, list)
    end = _repeated(asked, ends, said)
    if end is None and len(asked) > 1 and asked[-1]["role"] == "assistant":
        # The prompt may hold a whole conversation with another answer.
        end = _repeated(asked[:-1], ends, said)
        is_cut = end is None
    if end is not None:
        whole = extended(said[:end], ends) + said[end:]
    elif any(message["role"] == "user" for message in said):
        refuse("no common prompt", "the messages of a response ask something else than the prompt")
    else:
        whole, end = extended(asked, ends) + said, len(asked)
    return lead + whole, len(lead) + end if is_cut else 0


def _without_system(messages: Messages) -> tuple[Messages, Messages]:
    """The system turn that leads messages, as a list of one or none, and all others."""
    at = int(bool(messages) and messages[0]["role"] == "system")
    return messages[:at], messages[at:]


def _repeated(asked: Messages, ends: Texts, said: Messages) -> int | None:
    """The index in ``said`` after the turns that are those asked, with or without their ends."""
    runs = [asked, extended(asked, ends)] if ends and asked else [asked]
    for start in range(len(said) - len(asked) + 1):
        end = start + len(asked)
        if any(_alike(said[start:end], run) for run in runs):
            return end
    return None


def _alike(some: Messages, others: Messages) -> bool:
    """Whether turns say the same, but for blanks at the ends of their texts."""
    said = [
        [(m["role"], m["content"].strip(), m.get("tool_calls")) for m in messages]
        for messages in (some, others)
    ]
    return said[0] == said[1]


def extended(messages: Messages, ends: Texts) -> Messages:
    """The messages with ``ends`` after their last user turn. Raises Refusal if there is none."""
    if not ends:
        return messages
    at = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=None)
    if at is None:
        refuse("bad messages", "the prompt has no user turn that input or context could follow")
    turn = {**messages[at], "content": extended_text(messages[at]["content"], ends)}
    return [*messages[:at], turn, *messages[at + 1 :]]


def extended_text(text: str, ends: Texts) -> str:
    """The text and after it those of ``ends`` that it does not end with already, each as a
    paragraph of its own."""
    missing: list[str] = []
    rest = text.rstrip()
    for end in reversed(ends):
        before = rest.removesuffix(end.strip())
        gap = before[len(before.rstrip()) :]
        if before != rest and (not before or gap.count("\n") > 1):
            rest = before.rstrip()
        else:
            missing.insert(0, end)
    return "\n\n".join([text, *missing])


def from_transcripts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Cut two transcripts after their last ``Assistant:``, which must follow equal histories.

    Turns of tools, and the turns that called them, belong to the answer that they lead to.
    """
    history, response_1 = _last_turn(chosen)
    other_history, response_2 = _last_turn(rejected)
    if response_1 is None or response_2 is None:
        refuse("no common prompt", "only one of the two is a transcript")
    if HUMAN in response_1 or HUMAN in response_2:
        refuse("no common prompt", "a transcript ends with a Human turn")
    if history != other_history:
        refuse("no common prompt", "the transcripts differ before their last Assistant turn")
    return history + ASSISTANT, response_1, response_2


def _last_turn(text: str) -> tuple[str, str | None]:
    """The text before the ``Assistant:`` of the last answer and the text after it, which includes
    the turns of tools that led to the answer; None for the latter if there is no answer."""
    turns = list(TURN.finditer(text))
    at = max((n for n, turn in enumerate(turns) if turn[1] == "Assistant"), default=None)
    if at is None:
        return text, None
    while (called := _caller(turns, at)) is not None:
        at = called
    return text[: turns[at].start()], text[turns[at].end() :]


def _caller(turns: list[re.Match[str]], at: int) -> int | None:
    """The index of the assistant's turn that called the tools whose turns stand directly before
    turn ``at``; None if there are no such turns."""
    before = at - 1
    while before >= 0 and turns[before][1] == "Tool":
        before -= 1
    called = 0 <= before < at - 1 and turns[before][1] == "Assistant"
    return before if called else None


def common_words(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Cut two texts after the whole words that both begin with.

    One space before the cut goes to the responses, as tokenizers join it to the next word.
    """
    if chosen == rejected:
        refuse("equal responses", "chosen and rejected are the same text")
    differs = (
        at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if len(set(pair)) > 1
    )
    common = chosen[: next(differs, min(len(chosen), len(rejected)))]
    following = (chosen[len(common) :], rejected[len(common) :])
    if any(rest and not rest[0].isspace() for rest in following):
        common = re.sub(r"\S+\Z", "", common)
    cut = len(common.removesuffix(" "))
    if not common.strip():
        refuse("no common prompt", "chosen and rejected do not begin with the same word")
    return chosen[:cut], chosen[cut:], rejected[cut:]
