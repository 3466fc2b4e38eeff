"""Reading the world's texts: what a prompt asks for and what a response says.

A response is read once, from left to right, as phrases that each have a slot: opener, address,
answer, reason, redirection, closer. Slots only move forward, so phrases count in a sensible order
and are waste in any other.
"""

from dataclasses import dataclass
from functools import lru_cache

from weakteach.worlds.domain import (
    CLOSER,
    OPENER,
    Phrase,
    Reading,
    fixed_phrase,
    phrase_table,
    places,
    read_phrases,
)
from weakteach.worlds.world_words import (
    ADDRESS,
    AIDS,
    ASSISTANT,
    CATEGORIES,
    CATEGORY_OF,
    CHOICE_ANSWER,
    CHOICE_REQUEST,
    COUNTS,
    FILLERS,
    HARMFUL_VERBS,
    HEDGES,
    HOW_ANSWER,
    HOW_REQUEST,
    HUMAN,
    INTRODUCTION,
    KIND_ANSWER,
    KIND_REQUEST,
    LIST_EXCEPTION,
    LIST_REQUESTS,
    NAMES,
    OBJECTS,
    POLITE_CLOSERS,
    POLITE_OPENERS,
    REASONS,
    REDIRECTIONS,
    REFUSALS,
    RUDE_CLOSERS,
    RUDE_OPENERS,
)

# ---- What a prompt asks -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListTask:
    """Name `count` items of a category, without the forbidden one."""

    count: int
    category: str
    forbidden: str | None = None


@dataclass(frozen=True, slots=True)
class KindTask:
    """Say of which category an item is."""

    item: str


@dataclass(frozen=True, slots=True)
class ChoiceTask:
    """Pick the one of two items that is of the category that the human likes."""

    category: str
    offers: tuple[str, str]


@dataclass(frozen=True, slots=True)
class HowTask:
    """Say how to do something to an object; a harmful verb calls for a refusal."""

    verb: str
    thing: str

    @property
    def harmful(self) -> bool:
        return self.verb in HARMFUL_VERBS


Task = ListTask | KindTask | ChoiceTask | HowTask


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt as it was understood: its last turn's task, and the human's name if it was given."""

    task: Task
    name: str | None


@lru_cache(maxsize=4096)
def read_prompt(prompt: str) -> Request:
    """The request that a prompt of the world makes; ValueError for any other text."""
    if prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT):
        turns = prompt.removesuffix(ASSISTANT).split(HUMAN)
        task = _task_asked(turns[-1].split())
        if task is not None:
            return Request(task, _name_given(prompt.split()))
    raise ValueError(
        f"the gold reward is known for prompts of the embedded world only, and this is none: "
        f"{prompt[-200:]!r}"
    )


def _task_asked(turn: list[str]) -> Task | None:
    """The task at the end of a turn; what comes before it is greeting."""

    def asked(template: str) -> tuple[str, ...] | None:
        start = len(turn) - len(template.split())
        return places(template, turn, start) if start >= 0 else None

    for opening in LIST_REQUESTS:
        for ending in (" .", f" {LIST_EXCEPTION} ."):
            match asked(opening + ending):
                case (count, category, *rest) if count in COUNTS and category in CATEGORIES:
                    if not rest or rest[0] in CATEGORY_OF:
                        return ListTask(COUNTS[count], category, rest[0] if rest else None)
    match asked(KIND_REQUEST):
        case (item,) if item in CATEGORY_OF:
            return KindTask(item)
    match asked(CHOICE_REQUEST):
        case (category, one, other) if category in CATEGORIES and {one, other} <= _ITEMS:
            return ChoiceTask(category, (one, other))
    match asked(HOW_REQUEST):
        case (verb, thing) if verb in _VERBS and thing in OBJECTS:
            return HowTask(verb, thing)
    return None


def _name_given(words: list[str]) -> str | None:
    for at in range(len(words)):
        match places(INTRODUCTION, words, at):
            case (name,) if name in NAMES:
                return name
    return None


_ITEMS = frozenset(CATEGORY_OF)
_VERBS = frozenset((*AIDS, *HARMFUL_VERBS))
_AIDS = frozenset(AIDS.values())

# ---- What a response says -----------------------------------------------------------------------

ADDRESSED, ANSWER, REASON, REDIRECTION = range(OPENER + 1, OPENER + 5)


@dataclass(frozen=True, slots=True)
class ListAnswer:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KindAnswer:
    item: str
    category: str


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    item: str


@dataclass(frozen=True, slots=True)
class HowAnswer:
    aid: str
    verb: str
    thing: str


@dataclass(frozen=True, slots=True)
class RefusingAnswer:
    pass


Answer = ListAnswer | KindAnswer | ChoiceAnswer | HowAnswer | RefusingAnswer


_FIXED = phrase_table(
    (
        (POLITE_OPENERS, OPENER, "polite"),
        (RUDE_OPENERS, OPENER, "rude"),
        (REFUSALS, ANSWER, RefusingAnswer()),
        (HEDGES, ANSWER, "hedge"),
        (REASONS, REASON, "reason"),
        (REDIRECTIONS, REDIRECTION, "redirection"),
        (POLITE_CLOSERS, CLOSER, "polite"),
        (RUDE_CLOSERS, CLOSER, "rude"),
        (FILLERS, CLOSER, "filler"),
    )
)
_LENGTH = {text: len(text.split()) for text in (ADDRESS, KIND_ANSWER, CHOICE_ANSWER, HOW_ANSWER)}


def _filled(
    template: str, slot: int, words: tuple[str, ...], at: int, says: Answer | str
) -> Phrase:
    """The phrase made of the words at `at`, which are a template with its `{}` filled."""
    return Phrase(slot, words[at : at + _LENGTH[template]], says)


def _phrase_at(words: tuple[str, ...], at: int) -> Phrase | None:
    """The longest phrase that starts at a word."""
    word = words[at]
    if (phrase := fixed_phrase(_FIXED, words, at)) is not None:
        return phrase
    if word in _ITEMS:
        return _kind_at(words, at) or _list_at(words, at)
    if word in NAMES and words[at + 1 : at + 2] == (",",):
        return _filled(ADDRESS, ADDRESSED, words, at, word)
    match places(CHOICE_ANSWER, words, at):
        case (item,) if item in _ITEMS:
            return _filled(CHOICE_ANSWER, ANSWER, words, at, ChoiceAnswer(item))
    match places(HOW_ANSWER, words, at):
        case (aid, verb, thing) if aid in _AIDS and verb in _VERBS and thing in OBJECTS:
            return _filled(HOW_ANSWER, ANSWER, words, at, HowAnswer(aid, verb, thing))
    return None


def _kind_at(words: tuple[str, ...], at: int) -> Phrase | None:
    match places(KIND_ANSWER, words, at):
        case (item, category) if category in CATEGORIES:
            return _filled(KIND_ANSWER, ANSWER, words, at, KindAnswer(item, category))
    return None


def _list_at(words: tuple[str, ...], at: int) -> Phrase:
    """A phrase of items with a comma or an "and" between them, and the full stop after them."""
    items = [words[at]]
    end = at + 1
    while end + 1 < len(words) and words[end] in (",", "and") and words[end + 1] in _ITEMS:
        items.append(words[end + 1])
        end += 2
    if words[end : end + 1] == (".",):
        end += 1
    return Phrase(ANSWER, words[at:end], ListAnswer(tuple(items)))


def read_response(words: tuple[str, ...]) -> Reading:
    """The phrases of a response (`read_phrases`); a reason or redirection needs a refusal."""
    return read_phrases(words, _phrase_at, _allowed)


def _allowed(phrase: Phrase, kept: list[Phrase]) -> bool:
    if phrase.slot not in (REASON, REDIRECTION):
        return True
    return any(isinstance(before.says, RefusingAnswer) for before in kept)
