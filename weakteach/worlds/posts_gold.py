"""Reading posts and their summaries, and the gold reward of any text as the summary of a post."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product

from weakteach.worlds.domain import (
    CLOSER,
    OPENER,
    GoldScore,
    Phrase,
    Reading,
    fixed_phrase,
    form_reward,
    phrase_table,
    places,
    read_phrases,
)
from weakteach.worlds.posts_words import (
    ACTS,
    BRISK_OPENERS,
    DECOYS,
    DETAILS,
    EVENT,
    KIND_CLOSERS,
    PARTS,
    PLANS,
    POST,
    QUESTION,
    RELATIONS,
    RUDE_CLOSERS,
    RUDE_OPENERS,
    STATEMENT,
    SUMMARY,
    VALUES,
)
from weakteach.worlds.world_words import FILLERS, HEDGES, NAMES, OBJECTS

Facts = Mapping[str, str]
"""What is told, by kind: who did what to which thing, and details."""

STATED, ASKED = range(OPENER + 1, OPENER + 3)


def posts_gold(prompt: str, response: str) -> GoldScore:
    """The gold reward of any text as the summary of a post.

        2 task + manner + form

    `task` is max(0, right - 2 false) / facts: the share of the post's facts (three for who did
    what, one for each detail) that the summary tells, where each fact that the summary tells but
    the post does not costs two. `manner` is 0.5 [brisk opener] + 0.3 [kind closer] if the
    summary says who did what, true or not, and 0 otherwise; `form` is `form_reward`. A text
    without a word earns -4. Raises ValueError for a prompt that is no post.
    """
    facts = read_post(prompt)
    words = tuple(response.split())
    if not words:
        return GoldScore(-4.0, 0.0, 0.0, 0)
    reading = read_phrases(words, _phrase_at, lambda phrase, kept: True)
    told = _told(reading)
    right = sum(facts.get(kind) == value for kind, value in told.items())
    task = max(0, right - 2 * (len(told) - right)) / len(facts)
    reward = 2 * task + form_reward(words, reading)
    if "who" in told:
        reward += 0.5 * (reading.says(OPENER) == "brisk") + 0.3 * ("kind" in reading.closers())
    return GoldScore(reward, task, reading.wasted / len(words), len(words))


# ---- Posts --------------------------------------------------------------------------------------

# Every sentence that tells a detail, with its kind and value.
_DETAIL_SENTENCES: dict[str, tuple[str, str]] = {
    template.format(*relation, value): (kind, value)
    for kind, templates in DETAILS.items()
    for template in templates
    for value in VALUES[kind]
    for relation in (product(RELATIONS) if template.count("{}") == 2 else [()])
}


@lru_cache(maxsize=4096)
def read_post(prompt: str) -> Facts:
    """The facts that a post tells; ValueError for a text that is not a post with an event."""
    facts: dict[str, str] = {}
    if prompt.startswith(POST) and prompt.endswith(SUMMARY):
        for sentence in _sentences(prompt.removeprefix(POST).removesuffix(SUMMARY)):
            match places(EVENT, sentence.split()):
                case (_, who, did, thing) if who in _NAMES and did in _ACTS and thing in _OBJECTS:
                    facts |= {"who": who, "did": did, "thing": thing}
            if sentence in _DETAIL_SENTENCES:
                kind, value = _DETAIL_SENTENCES[sentence]
                facts[kind] = value
    if "who" not in facts:
        raise ValueError(
            "the gold reward is known for posts of the embedded domain only, and this is none: "
            f"{prompt[-200:]!r}"
        )
    return facts


def _sentences(text: str) -> Iterator[str]:
    sentence: list[str] = []
    for word in text.split():
        sentence.append(word)
        if word in (".", "?"):
            yield " ".join(sentence)
            sentence = []


# ---- Summaries ----------------------------------------------------------------------------------

_NAMES, _ACTS, _OBJECTS = frozenset(NAMES), frozenset(ACTS), frozenset(OBJECTS)
_VALUE_SETS = {kind: frozenset(values) for kind, values in VALUES.items()}
# Sentences beside the point of a post; in a summary they count as fillers.
_CHATTER = tuple(
    template.format(value) for kind, template in DECOYS.items() for value in VALUES[kind]
)
_FIXED = phrase_table(
    (
        (BRISK_OPENERS, OPENER, "brisk"),
        (RUDE_OPENERS, OPENER, "rude"),
        (HEDGES, STATED, "hedge"),
        *(((QUESTION.format(plan),), ASKED, {"plan": plan}) for plan in PLANS),
        (KIND_CLOSERS, CLOSER, "kind"),
        (RUDE_CLOSERS, CLOSER, "rude"),
        (FILLERS, CLOSER, "filler"),
        (_CHATTER, CLOSER, "filler"),
    )
)
_LENGTHS = {kind: len(template.split()) for kind, template in PARTS.items()}
_STATEMENT_LENGTH = len(STATEMENT.split())


def _phrase_at(words: tuple[str, ...], at: int) -> Phrase | None:
    """The longest phrase that starts at a word."""
    if words[at] in _NAMES and (statement := _statement_at(words, at)) is not None:
        return statement
    return fixed_phrase(_FIXED, words, at)


def _statement_at(words: tuple[str, ...], at: int) -> Phrase | None:
    """A phrase of who did what, the details that follow in the order of PARTS, and the full stop
    after them; None if the words do not say who did what."""
    match places(STATEMENT, words, at):
        case (who, did, thing) if did in _ACTS and thing in _OBJECTS:
            told = {"who": who, "did": did, "thing": thing}
        case _:
            return None
    end = at + _STATEMENT_LENGTH
    for kind, template in PARTS.items():
        match places(template, words, end):
            case (value,) if value in _VALUE_SETS[kind]:
                told[kind] = value
                end += _LENGTHS[kind]
    if words[end : end + 1] == (".",):
        end += 1
    return Phrase(STATED, words[at:end], told)


def _told(reading: Reading) -> Facts:
    told: dict[str, str] = {}
    for phrase in reading.kept:
        if isinstance(phrase.says, dict):
            told |= phrase.says
    return told
