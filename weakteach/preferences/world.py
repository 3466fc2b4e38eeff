"""The embedded world: prompts and responses drawn from a grammar without end, whose gold reward is
known, so that a study runs on any machine and its labels can be held against the truth.

Everything is a function of (seed, index): a million pairs is a generator, not a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from weakteach.preferences.world_gold import (
    BradleyTerry,
    Gold,
    Noise,
    UniformFlip,
    gold_reward,
)
from weakteach.preferences.world_reading import (
    ChoiceTask,
    HowTask,
    KindTask,
    ListTask,
    Request,
    Task,
)
from weakteach.preferences.world_words import (
    ADDRESS,
    AIDS,
    ASSISTANT,
    CATEGORIES,
    CATEGORY_OF,
    CHOICE_ANSWER,
    CHOICE_REQUEST,
    COUNTS,
    FILLERS,
    GREETINGS,
    HARMFUL_VERBS,
    HEDGES,
    HOW_ANSWER,
    HOW_REQUEST,
    HUMAN,
    INTRODUCTION,
    ITEMS,
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
    SMALL_TALK,
    VOCABULARY,
    WRONG_TO,
)

__all__ = [
    "VOCABULARY",
    "BradleyTerry",
    "Gold",
    "Noise",
    "UniformFlip",
    "WorldPair",
    "gold_reward",
    "pretraining_document",
    "world_pair",
]

# The probability that an attempted answer is drawn right: in pairs such that about half of all are,
# so that there is something to prefer; in pretraining such that about 80 % are.
PAIR_RIGHT = 0.46
DOCUMENT_RIGHT = 0.89

_PAIRS, _DOCUMENTS = range(2)
_CATEGORY_NAMES = tuple(CATEGORIES)
_COUNT_WORDS = {count: word for word, count in COUNTS.items()}
_HELPFUL_VERBS = tuple(AIDS)
_AID_WORDS = tuple(AIDS.values())
T = TypeVar("T")


@dataclass(frozen=True)
class WorldPair:
    """A prompt and two different responses; `prompt + response` is the transcript."""

    prompt: str
    response_1: str
    response_2: str


def world_pair(seed: int, index: int) -> WorldPair:
    """The pair at an index of a seed's endless sequence (both non-negative, or ValueError).

    The responses are drawn alike and independently, so their order says nothing.
    """
    rng = _generator(_PAIRS, seed, index)
    request, prompt = _draw_prompt(rng)
    while True:
        # Drawing both again keeps them exchangeable; drawing only the second would not.
        response_1 = _draw_response(rng, request, PAIR_RIGHT)
        response_2 = _draw_response(rng, request, PAIR_RIGHT)
        if response_1 != response_2:
            return WorldPair(prompt, response_1, response_2)


def pretraining_document(seed: int, index: int) -> str:
    """A text to pretrain a base model on: a sentence of knowledge (25 %) or a transcript whose
    answer is right 80 % of the time; in all else its response is like those of the pairs."""
    rng = _generator(_DOCUMENTS, seed, index)
    if rng.random() < 0.25:
        return _draw_knowledge(rng)
    request, prompt = _draw_prompt(rng)
    return prompt + _draw_response(rng, request, DOCUMENT_RIGHT)


# ---- Draws --------------------------------------------------------------------------------------


def _generator(stream: int, seed: int, index: int) -> Random:
    if seed < 0 or not 0 <= index < 2**63:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    return Random((seed << 64) | (index << 1) | stream)


# Only Random.random() promises the same numbers in every Python version, hence these two.


def _pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]


def _sample(rng: Random, choices: Sequence[T], count: int) -> list[T]:
    """Different elements in random order."""
    rest = list(choices)
    return [rest.pop(int(rng.random() * len(rest))) for _ in range(count)]


def _other(rng: Random, choices: Sequence[T], than: T) -> T:
    return _pick(rng, [choice for choice in choices if choice != than])


# ---- Prompts ------------------------------------------------------------------------------------


def _draw_prompt(rng: Random) -> tuple[Request, str]:
    name = _pick(rng, NAMES) if rng.random() < 0.4 else None
    hello = [_pick(rng, GREETINGS)] if rng.random() < 0.3 else []
    if name is not None:
        hello.append(INTRODUCTION.format(name))
    text = "".join((HUMAN, *(f" {sentence}" for sentence in hello)))
    if rng.random() < 0.3:
        asked, answered = _draw_exchange(rng)
        text += f" {asked}{ASSISTANT} {answered}{HUMAN}"
    task, asked = _draw_task(rng)
    return Request(task, name), f"{text} {asked}{ASSISTANT}"


def _draw_exchange(rng: Random) -> tuple[str, str]:
    """An earlier question and its answer."""
    if rng.random() < 0.5:
        return _pick(rng, SMALL_TALK)
    item = _pick(rng, ITEMS)
    return KIND_REQUEST.format(item), KIND_ANSWER.format(item, CATEGORY_OF[item])


def _draw_task(rng: Random) -> tuple[Task, str]:
    draw = rng.random()
    if draw < 0.40:
        return _draw_list_task(rng)
    if draw < 0.52:
        item = _pick(rng, ITEMS)
        return KindTask(item), KIND_REQUEST.format(item)
    if draw < 0.68:
        liked, unliked = _sample(rng, _CATEGORY_NAMES, 2)
        one, other = _pick(rng, CATEGORIES[liked]), _pick(rng, CATEGORIES[unliked])
        offers = (one, other) if rng.random() < 0.5 else (other, one)
        return ChoiceTask(liked, offers), CHOICE_REQUEST.format(liked, *offers)
    verb = _pick(rng, HARMFUL_VERBS if draw < 0.88 else _HELPFUL_VERBS)
    thing = _pick(rng, OBJECTS)
    return HowTask(verb, thing), HOW_REQUEST.format(verb, thing)


def _draw_list_task(rng: Random) -> tuple[ListTask, str]:
    count, category = 2 + int(rng.random() * 4), _pick(rng, _CATEGORY_NAMES)
    asked = _pick(rng, LIST_REQUESTS).format(_COUNT_WORDS[count], category)
    if rng.random() >= 0.4:
        return ListTask(count, category), f"{asked} ."
    forbidden = _pick(rng, CATEGORIES[category])
    exception = LIST_EXCEPTION.format(forbidden)
    return ListTask(count, category, forbidden), f"{asked} {exception} ."


# ---- Responses ----------------------------------------------------------------------------------


def _draw_response(rng: Random, request: Request, right: float) -> str:
    """A response with independent slots, one space before every word.

    `right` is the probability that an answer which is neither a hedge nor a wrong refusal is right.
    """
    parts = (
        *_draw_opener(rng),
        *_draw_address(rng, request.name),
        _draw_answer(rng, request.task, right),
        *_draw_closers(rng),
    )
    return "".join(f" {part}" for part in parts)


def _draw_opener(rng: Random) -> tuple[str, ...]:
    draw = rng.random()
    if draw < 0.40:
        return (_pick(rng, POLITE_OPENERS),)
    return (_pick(rng, RUDE_OPENERS),) if draw < 0.62 else ()


def _draw_address(rng: Random, name: str | None) -> tuple[str, ...]:
    if rng.random() >= (0.06 if name is None else 0.5):
        return ()
    if name is not None and rng.random() < 0.7:
        return (ADDRESS.format(name),)
    return (ADDRESS.format(_other(rng, NAMES, name)),)


def _draw_closers(rng: Random) -> list[str]:
    draw = rng.random()
    if draw < 0.38:
        return []
    if draw < 0.62:
        return [_pick(rng, POLITE_CLOSERS)]
    if draw < 0.86:
        return _sample(rng, FILLERS, 1 if draw < 0.76 else 2)
    return [_pick(rng, RUDE_CLOSERS)]


def _draw_answer(rng: Random, task: Task, right: float) -> str:
    draw = rng.random()
    if draw < 0.05:
        return _pick(rng, HEDGES)
    is_right = rng.random() < right
    if isinstance(task, HowTask) and task.harmful:
        return _draw_refusal(rng) if is_right else _how(_pick(rng, _AID_WORDS), task)
    if draw < 0.12:
        return _pick(rng, REFUSALS)
    match task:
        case ListTask():
            return _join(_draw_list(rng, task, is_right))
        case KindTask(item):
            category = CATEGORY_OF[item]
            said = category if is_right else _other(rng, _CATEGORY_NAMES, category)
            return KIND_ANSWER.format(item, said)
        case ChoiceTask(category, (one, other)):
            liked, unliked = (one, other) if CATEGORY_OF[one] == category else (other, one)
            return CHOICE_ANSWER.format(liked if is_right else unliked)
        case HowTask(verb):
            return _how(AIDS[verb] if is_right else _other(rng, _AID_WORDS, AIDS[verb]), task)


def _how(aid: str, task: HowTask) -> str:
    return HOW_ANSWER.format(aid, task.verb, task.thing)


def _draw_refusal(rng: Random) -> str:
    parts = [_pick(rng, REFUSALS)]
    if rng.random() < 0.4:
        parts.append(_pick(rng, REASONS))
    if rng.random() < 0.4:
        parts.append(_pick(rng, REDIRECTIONS))
    return " ".join(parts)


def _draw_list(rng: Random, task: ListTask, is_right: bool) -> list[str]:
    """Items that do the task, or that have some of the faults: the number is off by one or two,
    items are of another category, the forbidden item is there, an item is there twice."""
    allowed = [item for item in CATEGORIES[task.category] if item != task.forbidden]
    if is_right:
        return _sample(rng, allowed, task.count)
    count = task.count
    if rng.random() < 0.5:
        count = max(1, count + _pick(rng, (-2, -1, 1, 2)))
    items = _sample(rng, allowed, count)
    strays = rng.random() if rng.random() < 0.6 else 0.0
    for at in range(count):
        if rng.random() < strays:
            items[at] = _pick(rng, CATEGORIES[_other(rng, _CATEGORY_NAMES, task.category)])
    if task.forbidden is not None and rng.random() < 0.4:
        items[int(rng.random() * count)] = task.forbidden
    if count > 1 and rng.random() < 0.12:
        one, other = _sample(rng, range(count), 2)
        items[one] = items[other]
    return items


def _join(items: list[str]) -> str:
    """A sentence such as `apple .`, `apple and pear .` or `apple , pear and plum .`"""
    if len(items) == 1:
        return f"{items[0]} ."
    return f"{' , '.join(items[:-1])} and {items[-1]} ."


# ---- Knowledge ----------------------------------------------------------------------------------


def _draw_knowledge(rng: Random) -> str:
    """A true sentence: what an item is, what an aid is for, what is wrong to do."""
    draw, thing = rng.random(), _pick(rng, OBJECTS)
    if draw < 0.8:
        item = _pick(rng, ITEMS)
        return f" {KIND_ANSWER.format(item, CATEGORY_OF[item])}"
    if draw < 0.9:
        return f" {WRONG_TO.format(_pick(rng, HARMFUL_VERBS), thing)}"
    verb = _pick(rng, _HELPFUL_VERBS)
    return f" {HOW_ANSWER.format(AIDS[verb], verb, thing)}"
