"""The second embedded domain, the posts: someone tells what somebody did, and a summary is asked
for. Its gold reward is known, and it shares words and models with the first."""

from collections.abc import Sequence
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
from weakteach.worlds.posts_gold import Facts, posts_gold
from weakteach.worlds.posts_words import (
    BRISK_OPENERS,
    DECOYS,
    DETAILS,
    EVENT,
    GREETINGS,
    KIND_CLOSERS,
    PARTS,
    POST,
    QUESTION,
    RELATIONS,
    RUDE_CLOSERS,
    RUDE_OPENERS,
    STATEMENT,
    SUMMARY,
    THANKS,
    VALUES,
)
from weakteach.worlds.world_words import FILLERS, HEDGES

# The probability that a summary that is no hedge tells all facts and nothing else. It makes about
# half of all summaries in pairs do so, so that there is something to prefer, and about 80 % in
# pretraining.
PAIR_RIGHT = 0.48
DOCUMENT_RIGHT = 0.84

_NUMBER = 1  # this domain's number in `generator`
_EVENT_KINDS = ("who", "did", "thing")
_DETAIL_KINDS = tuple(DETAILS)
_DECOY_KINDS = tuple(DECOYS)


@dataclass(frozen=True, slots=True)
class Post:
    """A post's text, the facts that it tells, its chatter, and the words that its chatter names."""

    prompt: str
    facts: Facts
    chatter: Sequence[str]
    decoys: Facts


def posts_pair(seed: int, index: int) -> DomainPair:
    """The pair at `index` in the endless sequence of `seed`; ValueError if either is negative."""
    rng = generator(_NUMBER, PAIRS, seed, index)
    post = _draw_post(rng)
    return different_pair(post.prompt, lambda: _draw_summary(rng, post, PAIR_RIGHT))


def posts_document(seed: int, index: int) -> str:
    """A text to pretrain a base model on: a plain post with its plain summary (25 %), or a post
    with a summary that is right 80 % of the time and otherwise drawn as in pairs."""
    rng = generator(_NUMBER, DOCUMENTS, seed, index)
    if rng.random() < 0.25:
        relation, facts = pick(rng, RELATIONS), _draw_facts(rng, int(rng.random() * 2))
        text = " ".join(_tell(rng, relation, facts))
        return f"{POST} {text}{SUMMARY} {' '.join(_summarize(facts))}"
    post = _draw_post(rng)
    return post.prompt + _draw_summary(rng, post, DOCUMENT_RIGHT)


@dataclass(frozen=True)
class Posts:
    """The domain of posts and their summaries, in a form like that of TL;DR."""

    name: ClassVar[str] = "posts"
    noise: ClassVar[BradleyTerry] = BradleyTerry(1.18)
    pair = staticmethod(posts_pair)
    document = staticmethod(posts_document)
    gold = staticmethod(posts_gold)


# ---- Posts --------------------------------------------------------------------------------------


def _draw_post(rng: Random) -> Post:
    """An event, two to four details in any order, and up to two sentences beside the point."""
    facts = _draw_facts(rng, 2 + int(rng.random() * 3))
    body = _tell(rng, pick(rng, RELATIONS), facts)
    decoys: dict[str, str] = {}
    chatter = []
    for _ in range(int(rng.random() * 3)):
        kind = pick(rng, _DECOY_KINDS)
        if kind not in decoys:
            decoys[kind] = pick_other(rng, VALUES[kind], facts.get(kind))
            chatter.append(DECOYS[kind].format(decoys[kind]))
    for sentence in chatter:
        body.insert(int(rng.random() * (len(body) + 1)), sentence)
    hello = [pick(rng, GREETINGS)] if rng.random() < 0.3 else []
    thanks = [pick(rng, THANKS)] if rng.random() < 0.3 else []
    text = "".join(f" {sentence}" for sentence in (*hello, *body, *thanks))
    return Post(f"{POST}{text}{SUMMARY}", facts, chatter, decoys)


def _draw_facts(rng: Random, details: int) -> dict[str, str]:
    kinds = (*_EVENT_KINDS, *sample(rng, _DETAIL_KINDS, details))
    return {kind: pick(rng, VALUES[kind]) for kind in kinds}


def _tell(rng: Random, relation: str, facts: Facts) -> list[str]:
    """The sentences of a post that tell the facts, in the order of the facts."""
    sentences = [EVENT.format(relation, *(facts[kind] for kind in _EVENT_KINDS))]
    for kind in tuple(facts)[len(_EVENT_KINDS) :]:
        value = (relation, facts[kind]) if kind == "feeling" else (facts[kind],)
        sentences.append(pick(rng, DETAILS[kind]).format(*value))
    return sentences


# ---- Summaries ----------------------------------------------------------------------------------


def _draw_summary(rng: Random, post: Post, right: float) -> str:
    """A summary with independent slots, one space before every word.

    `right` is the probability that a summary which is no hedge tells all facts and nothing else.
    """
    parts = (*_draw_opener(rng), *_draw_point(rng, post, right), *_draw_closers(rng, post))
    return "".join(f" {part}" for part in parts)


def _draw_opener(rng: Random) -> tuple[str, ...]:
    draw = rng.random()
    if draw < 0.40:
        return (pick(rng, BRISK_OPENERS),)
    return (pick(rng, RUDE_OPENERS),) if draw < 0.62 else ()


def _draw_closers(rng: Random, post: Post) -> Sequence[str]:
    draw = rng.random()
    if draw < 0.38:
        return ()
    if draw < 0.62:
        return (pick(rng, KIND_CLOSERS),)
    if draw < 0.74 and post.chatter:
        return post.chatter
    if draw < 0.86:
        return sample(rng, FILLERS, 1 if draw < 0.80 else 2)
    return (pick(rng, RUDE_CLOSERS),)


def _draw_point(rng: Random, post: Post, right: float) -> tuple[str, ...]:
    if rng.random() < 0.05:
        return (pick(rng, HEDGES),)
    return _summarize(post.facts if rng.random() < right else _draw_faulty(rng, post))


def _summarize(told: Facts) -> tuple[str, ...]:
    parts = [STATEMENT.format(*(told[kind] for kind in _EVENT_KINDS))]
    parts += [template.format(told[kind]) for kind, template in PARTS.items() if kind in told]
    question = (QUESTION.format(told["plan"]),) if "plan" in told else ()
    return (f"{' '.join(parts)} .", *question)


def _draw_faulty(rng: Random, post: Post) -> Facts:
    """The facts with one to three faults: a detail is left out, a word is wrong, a detail is
    invented. If the chatter names a word of that kind, it is the wrong one half of the time."""
    told = dict(post.facts)

    def wrong(kind: str) -> str:
        if kind in post.decoys and rng.random() < 0.5:
            return post.decoys[kind]
        return pick_other(rng, VALUES[kind], post.facts.get(kind))

    for _ in range(1 + int(rng.random() * 3)):
        draw = rng.random()
        details = [kind for kind in _DETAIL_KINDS if kind in told]
        absent = [kind for kind in _DETAIL_KINDS if kind not in told and kind not in post.facts]
        if draw < 0.35 and details:
            del told[pick(rng, details)]
        elif draw < 0.55 and absent:
            kind = pick(rng, absent)
            told[kind] = wrong(kind)
        else:
            kind = pick(rng, [*_EVENT_KINDS, *details])
            told[kind] = wrong(kind)
    return told
