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


def from_messages(
    prompt: str | Messages | None, system: str, first: Messages, second: Messages
) -> tuple[tuple[str, str, str], MessagesOf]:
    given = prompt if isinstance(prompt, list) else None
    wholes = [_conversation(prompt, messages) for messages in (first, second)]
    for whole in wholes:
        if not whole or whole[-1]["role"] != "assistant":
            refuse("bad messages", "a response does not end with an assistant's message")
    cuts = [_cut(whole, given) for whole in wholes]
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


def _cut(whole: Messages, given: Messages | None) -> int:
    """The index at which the response begins: after the ``given`` prompt if an assistant's message
    follows it there, else at the last message. If the conversation does not begin with ``given``,
    the calls of tools that lead to the last message belong to the response, too."""
    if given and whole[: len(given)] == given and len(whole) > len(given):
        return len(given) if whole[len(given)]["role"] == "assistant" else len(whole) - 1
    cut = len(whole) - 1
    while cut >= 2 and whole[cut - 1]["role"] == "tool":
        cut -= 1
        while cut and whole[cut]["role"] == "tool":
            cut -= 1
    return cut


def _conversation(prompt: str | Messages | None, messages: Messages) -> Messages:
    """The whole conversation, whether or not the messages repeat the prompt."""
    if prompt is None:
        return messages
    if isinstance(prompt, str):
        if any(message["content"] == prompt for message in messages[:-1]):
            return messages
        prompt = [{"role": "user", "content": prompt}]
    if messages[: len(prompt)] == prompt:
        return messages
    if prompt[-1:] and prompt[-1]["role"] == "assistant" and _asks(messages):
        return messages  # the prompt holds a whole conversation with another answer
    return prompt + messages


def _asks(messages: Messages) -> bool:
    return any(message["role"] == "user" for message in messages)


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
