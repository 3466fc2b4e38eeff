"""Messages for Parquet files: preferences in TRL's conversational form."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

COLUMNS = ("prompt_messages", "response_1_messages", "response_2_messages")
# Both are loaded by ``datasets`` as lists of dicts. Messages that hold more than a role and a text
# (calls of tools, reasoning) have no common columns: each is JSON, which ``datasets`` decodes.
PLAIN = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
FREE = pa.list_(pa.json_(pa.string()))


def messages_type(pairs: Iterable[Mapping[str, Any]]) -> pa.DataType | None:
    """The Parquet type of the messages of pairs (COLUMNS, as JSON); None where no pair has any.

    Raises ValueError where some pairs have messages and others none.
    """
    found = {_type_of(pair) for pair in pairs}
    if None in found and len(found) > 1:
        raise ValueError("some pairs have messages, others none")
    return FREE if FREE in found else next(iter(found), None)


def _type_of(pair: Mapping[str, Any]) -> pa.DataType | None:
    if pair[COLUMNS[0]] is None:
        return None
    messages = [message for name in COLUMNS for message in json.loads(pair[name])]
    return PLAIN if all(message.keys() == {"role", "content"} for message in messages) else FREE


def messages_value(text: str, kind: pa.DataType) -> list[Any]:
    """The messages of a JSON text as a Python value that fits the Parquet type ``kind``."""
    messages: list[Any] = json.loads(text)
    return messages if kind == PLAIN else [json.dumps(m, ensure_ascii=False) for m in messages]
