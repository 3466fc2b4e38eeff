"""A prompt as the conversation that its text is a transcript of."""

import re

from weakteach.preferences.rows import ASSISTANT, HUMAN, Messages

TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def messages_of(prompt: str) -> Messages:
    """The messages of a transcript that waits for the assistant; any other text is one message of
    the user."""
    text = f"\n\n{prompt}" if prompt.startswith(HUMAN.strip()) else prompt
    if HUMAN not in text or not text.rstrip().endswith(ASSISTANT.strip()):
        return [("user", prompt.strip())]
    system, *turns = TURN.split(text)
    spoken = [(ROLES[who], said.strip()) for who, said in zip(turns[::2], turns[1::2], strict=True)]
    return [("system", system.strip())] * bool(system.strip()) + spoken[:-1]
