"""What an embedded domain is: any number of texts from a grammar, with a known gold reward.

All text of a domain is word-spaced: words and punctuation marks are separated by one space.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Protocol, TypeVar

from weakteach.worlds.noise import BradleyTerry

T = TypeVar("T")


@dataclass(frozen=True)
class DomainPair:
    """A prompt and two different responses; `prompt + response` is the whole text."""

    prompt: str
    response_1: str
    response_2: str


@dataclass(frozen=True, slots=True)
class GoldScore:
    """A gold reward, with the task part and the share of garbage (both in [0, 1]) it came from."""

    reward: float
    task: float
    garbage: float
    words: int


class Domain(Protocol):
    """A grammar with its gold reward. Implementations are frozen dataclasses without fields, so
    that they may be part of a step.

    Everything is a function of (seed, index): a million pairs is a generator, not a file. `pair`
    and `document` raise ValueError for negative numbers, `gold` for a prompt that is not of the
    domain.
    """

    name: ClassVar[str]
    noise: ClassVar[BradleyTerry]
    """That of its "human" choices; about 72 % of them agree with the gold reward."""

    def pair(self, seed: int, index: int, /) -> DomainPair: ...

    def document(self, seed: int, index: int, /) -> str:
        """A text to pretrain a base model on."""
        ...

    def gold(self, prompt: str, response: str, /) -> GoldScore: ...


# ---- Draws --------------------------------------------------------------------------------------

PAIRS, DOCUMENTS = range(2)


def generator(domain: int, stream: int, seed: int, index: int) -> Random:
    """The random numbers of one pair or document; `domain` and `stream` are 0 or 1."""
    if seed < 0 or not 0 <= index < 2**62:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    return Random((seed << 64) | (domain << 63) | (index << 1) | stream)


# Only Random.random() promises the same numbers in every Python version, hence these functions.


def pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]


def sample(rng: Random, choices: Sequence[T], count: int) -> list[T]:
    """Different elements in random order."""
    rest = list(choices)
    return [rest.pop(int(rng.random() * len(rest))) for _ in range(count)]


def pick_other(rng: Random, choices: Sequence[T], than: T | None) -> T:
    return pick(rng, [choice for choice in choices if choice != than])


def different_pair(prompt: str, draw: Callable[[], str]) -> DomainPair:
    """Two responses drawn alike and independently, so their order says nothing."""
    while True:
        # Drawing both again keeps them exchangeable; drawing only the second would not.
        response_1, response_2 = draw(), draw()
        if response_1 != response_2:
            return DomainPair(prompt, response_1, response_2)


# ---- Phrases ------------------------------------------------------------------------------------

OPENER, CLOSER = 0, 9
"""The first and the last slot of a response; a domain has its own slots between them."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Consecutive words with a slot; `says` is what they state, or the manner of the phrase."""

    slot: int
    words: tuple[str, ...]
    says: object


PhraseTable = dict[str, list[Phrase]]


def phrase_table(entries: Sequence[tuple[Sequence[str], int, object]]) -> PhraseTable:
    """Fixed phrases, which have no `{}` to fill, by their first word, the longest first. Each of
    the `entries` holds texts, their slot and what they say."""
    table: PhraseTable = {}
    for texts, slot, says in entries:
        for text in texts:
            words = tuple(text.split())
            table.setdefault(words[0], []).append(Phrase(slot, words, says))
    for phrases in table.values():
        phrases.sort(key=lambda phrase: -len(phrase.words))
    return table


def fixed_phrase(table: PhraseTable, words: tuple[str, ...], at: int) -> Phrase | None:
    for phrase in table.get(words[at], ()):
        if words[at : at + len(phrase.words)] == phrase.words:
            return phrase
    return None


def places(template: str, words: Sequence[str], at: int = 0) -> tuple[str, ...] | None:
    """The words that fill the `{}` of a template at `at`, or None if it does not fit there."""
    parts = template.split()
    if len(words) < at + len(parts):
        return None
    found = []
    for offset, part in enumerate(parts):
        word = words[at + offset]
        if part == "{}":
            found.append(word)
        elif part != word:
            return None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Reading:
    """The phrases kept, in order, the number of rude phrases anywhere, and that of wasted words."""

    kept: list[Phrase]
    rude: int
    wasted: int

    def says(self, slot: int) -> object:
        """What the phrase in a slot says, for slots that hold one phrase; None if there is none."""
        return next((phrase.says for phrase in self.kept if phrase.slot == slot), None)

    def closers(self) -> Iterator[object]:
        return (phrase.says for phrase in self.kept if phrase.slot == CLOSER)


def read_phrases(
    words: tuple[str, ...],
    phrase_at: Callable[[tuple[str, ...], int], Phrase | None],
    allowed: Callable[[Phrase, list[Phrase]], bool],
) -> Reading:
    """Read phrases from left to right, each in a later slot than the one before.

    Only the slot of closers may hold several, all different. A word is wasted if it belongs to no
    phrase, to a phrase whose slot has passed, to a repetition, or to a phrase that is not `allowed`
    after those kept so far.
    """
    kept: list[Phrase] = []
    last, at, rude, wasted = -1, 0, 0, 0
    while at < len(words):
        phrase = phrase_at(words, at)
        if phrase is None:
            wasted += 1
            at += 1
            continue
        at += len(phrase.words)
        rude += phrase.says == "rude"
        fits = phrase.slot > last or (phrase.slot == CLOSER and phrase not in kept)
        if fits and allowed(phrase, kept):
            kept.append(phrase)
            last = phrase.slot
        else:
            wasted += len(phrase.words)
    return Reading(kept, rude, wasted)


def form_reward(words: tuple[str, ...], reading: Reading) -> float:
    """What the form of a text costs, whatever it says:

    - min(2, rude) - 0.3 min(4, fillers) - 3 garbage - min(1, 0.05 max(0, words - 30))
        - [no full stop at the end]

    `rude` and `fillers` count phrases; `garbage` is the share of wasted words.
    """
    fillers = sum(says == "filler" for says in reading.closers())
    cost = min(2, reading.rude) + 0.3 * min(4, fillers) + 3 * reading.wasted / len(words)
    return -cost - min(1.0, 0.05 * max(0, len(words) - 30)) - (words[-1] != ".")
