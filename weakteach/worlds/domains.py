"""The embedded domains together: their names, their words, and what models are pretrained on."""

from weakteach.worlds.domain import Domain
from weakteach.worlds.posts import Posts
from weakteach.worlds.posts_words import POSTS_VOCABULARY
from weakteach.worlds.world import World
from weakteach.worlds.world_words import WORLD_VOCABULARY

WORLD, POSTS = World(), Posts()
DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (WORLD, POSTS)}

VOCABULARY: tuple[str, ...] = tuple(dict.fromkeys((*WORLD_VOCABULARY, *POSTS_VOCABULARY)))
"""Every token piece that texts of the domains are made of, words with their leading space."""

MARKERS: tuple[str, ...] = tuple(piece for piece in VOCABULARY if piece.startswith("\n\n"))
"""The pieces that are not single words."""


def pretraining_document(seed: int, index: int) -> str:
    """The document at an index of a sequence that takes one from each domain in turn."""
    domains = list(DOMAINS.values())
    return domains[index % len(domains)].document(seed, index // len(domains))
