"""A preference pair, the table of human choices, and the quarantine for what cannot be a pair."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from weakteach.artifacts.errors import UserError

PAIR_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt", pa.string()),
        ("response_1", pa.string()),
        ("response_2", pa.string()),
        ("source", pa.string()),
        ("n_tokens", pa.int32()),
        ("place", pa.string()),
        ("id", pa.string()),
        ("prompt_messages", pa.string()),
        ("response_1_messages", pa.string()),
        ("response_2_messages", pa.string()),
        ("tools", pa.string()),
    ]
)
# Every comparison of every row of the input, in its order: the number of the row, where it stands,
# the user's id and his names of the two responses, and the pair that it became (``swapped``: its
# first response is the pair's response_2) or the reason why it became none. A duplicate has both.
# ``choice`` is 1 for the row's ``first``, which of ``decided`` rows is always the chosen one.
ROW_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("place", pa.string()),
        ("id", pa.string()),
        ("pair_id", pa.string()),
        ("swapped", pa.bool_()),
        ("choice", pa.int8()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("decided", pa.bool_()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
# The columns of pairs that humans are asked about; MESSAGE_COLUMNS may follow, and the choice does.
ASKED_COLUMNS = ("pair_id", "prompt", "response_1", "response_2")
# Columns of pairs that are null where the input had texts alone.
MESSAGE_COLUMNS = ("prompt_messages", "response_1_messages", "response_2_messages", "tools")
CHOICE_SCHEMA = pa.schema([("pair_id", pa.string()), ("choice", pa.int8())])
QUARANTINE_SCHEMA = pa.schema(
    [("place", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)

# The id and TRL's own columns; then messages, if the input had them, as JSON.
PREFERENCE_SCHEMA = pa.schema(
    [
        (n, pa.string())
        for n in (
            "pair_id", "prompt", "chosen", "rejected",
            "prompt_messages", "chosen_messages", "rejected_messages", "tools",
        )
    ]
)  # fmt: skip

# How many pairs a chunk has; the shards of a labeling are made of chunks.
CHUNK_ROWS = 128
# How many rows a Parquet row group has, and how many are held in memory while a source is read.
# Footers are read whole, so a million pairs must not have thousands of groups.
GROUP_ROWS = 1024

# Returns for each of many pairs the number of tokens of the longer of prompt + response_1 and
# prompt + response_2, or why a model cannot read the pair.
TokenCounter = Callable[[list["Pair"]], Sequence[int | str]]


class DataError(UserError):
    """Input data that cannot be used; the message names the file and the row."""


@dataclass(frozen=True)
class Quarantined:
    """A comparison that cannot be a pair: its place, why it was refused, and its number among those
    of its row."""

    place: str
    reason: str
    detail: str = ""
    id: str | None = None
    part: int = field(default=1, compare=False)


@dataclass(frozen=True)
class MessagesOf:
    """The messages of a prompt and of two responses, as JSON texts that stand beside their
    transcript, and the tools that may be called."""

    prompt: str
    first: str
    second: str
    tools: str | None = None

    @property
    def swapped(self) -> "MessagesOf":
        return MessagesOf(self.prompt, self.second, self.first, self.tools)


@dataclass(frozen=True)
class Comparison:
    """Two responses to a prompt, and which of them (1 or 2) a human preferred: an input row, or its
    comparison number ``part`` if it holds several.

    ``id`` is the user's own, ``columns`` are his names of the two responses. ``decided`` says that
    the columns themselves tell which response is chosen: the first.
    """

    place: str
    prompt: str
    first: str
    second: str
    preferred: int | None
    id: str | None = field(default=None, compare=False)
    columns: tuple[str, str] = field(default=("response_1", "response_2"), compare=False)
    messages: MessagesOf | None = field(default=None, compare=False)
    decided: bool = field(default=False, compare=False)
    part: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses in canonical order. Its choice is kept in a table of its own."""

    pair_id: str
    prompt: str
    response_1: str
    response_2: str
    messages: MessagesOf | None = field(default=None, compare=False)


def canonical_pair(comparison: Comparison) -> tuple[Pair, int | None]:
    """The pair of a comparison and the human choice in canonical order.

    The id hashes the prompt and the *set* of the two responses, and one bit of it draws their
    order: neither depends on the order in the input, nor on what a human preferred.
    """
    low, high = sorted((comparison.first, comparison.second))
    digest = hashlib.sha256()
    for text in (comparison.prompt, low, high):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    pair_id = digest.hexdigest()[:32]
    response_1, response_2 = (high, low) if digest.digest()[-1] & 1 else (low, high)
    messages = comparison.messages
    if messages and comparison.first == response_2:
        messages = messages.swapped
    pair = Pair(pair_id, comparison.prompt, response_1, response_2, messages)
    if comparison.preferred is None:
        return pair, None
    preferred = comparison.first if comparison.preferred == 1 else comparison.second
    return pair, 1 if preferred == response_1 else 2


def refusal(comparison: Comparison) -> str | None:
    """Why the comparison cannot be a pair, or None."""
    try:
        f"{comparison.prompt}{comparison.first}{comparison.second}".encode()
    except UnicodeEncodeError:
        # Lone surrogates, which JSON can spell and no file can hold.
        return "bad Unicode"
    if not comparison.prompt.strip():
        return "empty prompt"
    if not comparison.first.strip() or not comparison.second.strip():
        return "empty response"
    if comparison.first.strip() == comparison.second.strip():
        return "equal responses"
    return None


def messages_in(table: pa.Table, first: str, second: str) -> list[MessagesOf | None]:
    """The messages of each row of a table of pairs or preferences, None where it has texts alone.
    ``first`` and ``second`` are the columns of the two responses."""
    columns = ["prompt_messages", f"{first}_messages", f"{second}_messages", "tools"]
    if not set(columns) <= set(table.column_names):
        return [None] * len(table)
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return [None if row[0] is None else MessagesOf(*row) for row in rows]


def preference_set(pairs: pa.Table, labels: pa.Table) -> pa.Table:
    """The labeled pairs as a table of PREFERENCE_SCHEMA, in the order of their ids.

    Pairs and labels are joined by id. Raises DataError if a pair has two labels, a label has no
    pair, or a choice is neither 1 nor 2.
    """
    choices = dict(zip(labels["pair_id"].to_pylist(), labels["choice"].to_pylist(), strict=True))
    if len(choices) != len(labels):
        raise DataError(f"{len(labels) - len(choices)} pairs have more than one label")
    rows = []
    for pair in pairs.sort_by("pair_id").to_pylist():
        choice = choices.pop(pair["pair_id"], None)
        if choice is None:
            continue
        if choice not in (1, 2):
            raise DataError(f"The label of pair {pair['pair_id']} is {choice}, not 1 or 2")
        rows.append(preference(pair, choice))
    if choices:
        raise DataError(f"{len(choices)} labels have no pair, {next(iter(choices))} among them")
    return pa.Table.from_pylist(rows, PREFERENCE_SCHEMA)


def preference(pair: Mapping[str, Any], choice: int) -> dict[str, Any]:
    """A row of PREFERENCE_SCHEMA from a pair (PAIR_SCHEMA) of which response 1 or 2 was chosen."""
    chosen, rejected = ("response_1", "response_2") if choice == 1 else ("response_2", "response_1")
    return {
        "pair_id": pair["pair_id"],
        "prompt": pair["prompt"],
        "chosen": pair[chosen],
        "rejected": pair[rejected],
        "prompt_messages": pair.get("prompt_messages"),
        "chosen_messages": pair.get(f"{chosen}_messages"),
        "rejected_messages": pair.get(f"{rejected}_messages"),
        "tools": pair.get("tools"),
    }
