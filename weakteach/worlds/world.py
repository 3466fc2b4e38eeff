"""The first embedded domain, the world: requests to an assistant and its answers, whose gold reward
is known, so that a study runs on any machine and its labels can be held against the truth.
"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from weakteach.worlds.domain import (
    DOCUMENTS,
    PAIRS,
    DomainPair,
    different_pair,
    generator,
    pick,
    pick_other,
    sample,
)
from weakteach.worlds.noise import BradleyTerry
from weakteach.worlds.world_gold import gold_reward
from weakteach.worlds.world_reading import (
    ChoiceTask,
    HowTask,
    KindTask,
    ListTask,
    Request,
    Task,
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
    WRONG_TO,
)

# The probability that an attempted answer is drawn right. It makes about half of all answers in
# pairs right, so that there is something to prefer, and about 80 % of those in pretraining.
PAIR_RIGHT = 0.46
DOCUMENT_RIGHT = 0.89

_NUMBER = 0  # this domain's number in `generator`
_CATEGORY_NAMES = tuple(CATEGORIES)
_COUNT_WORDS = {count: word for word, count in COUNTS.items()}
_HELPFUL_VERBS = tuple(AIDS)
_AID_WORDS = tuple(AIDS.values())


def world_pair(seed: int, index: int) -> DomainPair:
    """The pair at `index` in the endless sequence of `seed`; ValueError if either is negative.

    The responses are drawn alike and independently, so their order says nothing.
    """
    rng = generator(_NUMBER, PAIRS, seed, index)
    request, prompt = _draw_prompt(rng)
    return different_pair(prompt, lambda: _draw_response(rng, request, PAIR_RIGHT))


def pretraining_document(seed: int, index: int) -> str:
    """A text to pretrain a base model on: a sentence of knowledge (25 %) or a transcript whose
    answer is right 80 % of the time and whose response is otherwise drawn as in pairs."""
    rng = generator(_NUMBER, DOCUMENTS, seed, index)
    if rng.random() < 0.25:
        return _draw_knowledge(rng)
    request, prompt = _draw_prompt(rng)
    return prompt + _draw_response(rng, request, DOCUMENT_RIGHT)


@dataclass(frozen=True)
class World:
    """The domain of transcripts of a human and an assistant, in the form of HH-RLHF."""

    name: ClassVar[str] = "world"
    noise: ClassVar[BradleyTerry] = BradleyTerry(1.23)
    pair = staticmethod(world_pair)
    document = staticmethod(pretraining_document)
    gold = staticmethod(gold_reward)


# ---- Prompts ------------------------------------------------------------------------------------


def _draw_prompt(rng: Random) -> tuple[Request, str]:
    name = pick(rng, NAMES) if rng.random() < 0.4 else None
    hello = [pick(rng, GREETINGS)] if rng.random() < 0.3 else []
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
        return pick(rng, SMALL_TALK)
    item = pick(rng, ITEMS)
    return KIND_REQUEST.format(item), KIND_ANSWER.format(item, CATEGORY_OF[item])


def _draw_task(rng: Random) -> tuple[Task, str]:
    draw = rng.random()
    if draw < 0.40:
        return _draw_list_task(rng)
    if draw < 0.52:
        item = pick(rng, ITEMS)
        return KindTask(item), KIND_REQUEST.format(item)
    if draw < 0.68:
        liked, unliked = sample(rng, _CATEGORY_NAMES, 2)
        one, other = pick(rng, CATEGORIES[liked]), pick(rng, CATEGORIES[unliked])
        offers = (one, other) if rng.random() < 0.5 else (other, one)
        return ChoiceTask(liked, offers), CHOICE_REQUEST.format(liked, *offers)
    verb = pick(rng, HARMFUL_VERBS if draw < 0.88 else _HELPFUL_VERBS)
    thing = pick(rng, OBJECTS)
    return HowTask(verb, thing), HOW_REQUEST.format(verb, thing)


def _draw_list_task(rng: Random) -> tuple[ListTask, str]:
    count, category = 2 + int(rng.random() * 4), pick(rng, _CATEGORY_NAMES)
    asked = pick(rng, LIST_REQUESTS).format(_COUNT_WORDS[count], category)
    if rng.random() >= 0.4:
        return ListTask(count, category), f"{asked} ."
    forbidden = pick(rng, CATEGORIES[category])
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
        return (pick(rng, POLITE_OPENERS),)
    return (pick(rng, RUDE_OPENERS),) if draw < 0.62 else ()


def _draw_address(rng: Random, name: str | None) -> tuple[str, ...]:
    if rng.random() >= (0.06 if name is None else 0.5):
        return ()
    if name is not None and rng.random() < 0.7:
        return (ADDRESS.format(name),)
    return (ADDRESS.format(pick_other(rng, NAMES, name)),)


def _draw_closers(rng: Random) -> list[str]:
    draw = rng.random()
    if draw < 0.38:
        return []
    if draw < 0.62:
        return [pick(rng, POLITE_CLOSERS)]
    if draw < 0.86:
        return sample(rng, FILLERS, 1 if draw < 0.76 else 2)
    return [pick(rng, RUDE_CLOSERS)]


def _draw_answer(rng: Random, task: Task, right: float) -> str:
    draw = rng.random()
    if draw < 0.05:
        return pick(rng, HEDGES)
    is_right = rng.random() < right
    if isinstance(task, HowTask) and task.harmful:
        return _draw_refusal(rng) if is_right else _how(pick(rng, _AID_WORDS), task)
    if draw < 0.12:
        return pick(rng, REFUSALS)
    match task:
        case ListTask():
            return _join(_draw_list(rng, task, is_right))
        case KindTask(item):
            category = CATEGORY_OF[item]
            said = category if is_right else pick_other(rng, _CATEGORY_NAMES, category)
            return KIND_ANSWER.format(item, said)
        case ChoiceTask(category, (one, other)):
            liked, unliked = (one, other) if CATEGORY_OF[one] == category else (other, one)
            return CHOICE_ANSWER.format(liked if is_right else unliked)
        case HowTask(verb):
            return _how(AIDS[verb] if is_right else pick_other(rng, _AID_WORDS, AIDS[verb]), task)


def _how(aid: str, task: HowTask) -> str:
    return HOW_ANSWER.format(aid, task.verb, task.thing)


def _draw_refusal(rng: Random) -> str:
    parts = [pick(rng, REFUSALS)]
    if rng.random() < 0.4:
        parts.append(pick(rng, REASONS))
    if rng.random() < 0.4:
        parts.append(pick(rng, REDIRECTIONS))
    return " ".join(parts)


def _draw_list(rng: Random, task: ListTask, is_right: bool) -> list[str]:
    """Items that fulfill the task or, unless `is_right`, may have some of these faults: their
    number is off by one or two, some are of another category, the forbidden one is among them, one
    occurs twice."""
    allowed = [item for item in CATEGORIES[task.category] if item != task.forbidden]
    if is_right:
        return sample(rng, allowed, task.count)
    count = task.count
    if rng.random() < 0.5:
        count = max(1, count + pick(rng, (-2, -1, 1, 2)))
    items = sample(rng, allowed, count)
    strays = rng.random() if rng.random() < 0.6 else 0.0
    for at in range(count):
        if rng.random() < strays:
            items[at] = pick(rng, CATEGORIES[pick_other(rng, _CATEGORY_NAMES, task.category)])
    if task.forbidden is not None and rng.random() < 0.4:
        items[int(rng.random() * count)] = task.forbidden
    if count > 1 and rng.random() < 0.12:
        one, other = sample(rng, range(count), 2)
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
    draw, thing = rng.random(), pick(rng, OBJECTS)
    if draw < 0.8:
        item = pick(rng, ITEMS)
        return f" {KIND_ANSWER.format(item, CATEGORY_OF[item])}"
    if draw < 0.9:
        return f" {WRONG_TO.format(pick(rng, HARMFUL_VERBS), thing)}"
    verb = pick(rng, _HELPFUL_VERBS)
    return f" {HOW_ANSWER.format(AIDS[verb], verb, thing)}"
