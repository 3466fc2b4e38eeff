"""The responses that a row's columns hold: two, or several, which make several comparisons."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from weakteach.preferences.forms import Form, value_at
from weakteach.preferences.messages import kind, refuse


def responses(row: Mapping[str, Any], form: Form) -> Iterator[tuple[Any, Any]]:
    """The pairs of responses that a row holds, usually one. Raises Refusal."""
    first, second = value_at(row, form.first), value_at(row, form.second)
    if form.ranked:
        ratings = next((row[name] for name in form.ratings if row.get(name) is not None), None)
        first, second = _ranked(_rated(first, ratings, form), form.first)
    if form.turns:
        first, second = (only_turn(first, form.first), only_turn(second, form.second))
    lists = [v if _is_texts(v) else [v] for v in (first, second)]
    for one in lists[0]:
        for two in lists[1]:
            yield one, two


def _is_texts(value: Any) -> bool:
    """Whether the value is a list of responses, each a text or a conversation."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, str | list) for v in value)


def _rated(items: Any, ratings: Any, form: Form) -> Any:
    """Texts joined with their ratings, if these stand in a column of their own; else the items
    unchanged. Raises Refusal unless there is one rating for each text."""
    if not form.ratings:
        return items
    if not isinstance(items, list) or not isinstance(ratings, list) or len(items) != len(ratings):
        refuse("bad choice", f"{form.first} and {form.ratings[0]} are no lists of one length")
    return [{"text": t, "score": r} for t, r in zip(items, ratings, strict=True)]


def _ranked(items: Any, name: str) -> tuple[list[Any], list[Any]]:
    """The best response, as a list of one, and all that are worse. Raises Refusal if several are
    best or any has no rank or score."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        refuse("not text", f"{name} is {kind(items)}, not a list of ranked answers")
    scored = []
    for item in items:
        text = next((item[k] for k in ("answer", "response", "text") if k in item), None)
        rank = item.get("rank")
        score = (
            -rank if isinstance(rank, int | float) else item.get("overall_score", item.get("score"))
        )
        if not isinstance(score, int | float) or score != score or not isinstance(text, str):
            refuse("bad choice", f"an entry of {name} holds no text with a rank or score")
        scored.append((score, text))
    best = max((score for score, _ in scored), default=0)
    firsts = [text for score, text in scored if score == best]
    if len(firsts) != 1 or len(scored) < 2:
        refuse("tie", f"{name} has {len(firsts)} best of {len(scored)}")
    return firsts, [text for score, text in scored if score < best]


def only_turn(value: Any, name: str) -> Any:
    """The text of a JSON list that holds just one; a value that is no JSON list is returned
    unchanged. Raises Refusal for any other list."""
    if not isinstance(value, str):
        return value
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        return value
    if not isinstance(turns, list):
        return value
    if len(turns) != 1 or not isinstance(turns[0], str):
        refuse("no common prompt", f"{name} holds {len(turns)} turns, of which answers differ")
    return turns[0]
