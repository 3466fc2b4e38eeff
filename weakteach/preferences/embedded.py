"""The embedded domains together: their names, their words, and what models are pretrained on."""

from weakteach.preferences.domain import Domain
from weakteach.preferences.posts import Posts
from weakteach.preferences.posts_words import POSTS_VOCABULARY
from weakteach.preferences.world import World
from weakteach.preferences.world_words import WORLD_VOCABULARY

WORLD, POSTS = World(), Posts()
DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (WORLD, POSTS)}

VOCABULARY: tuple[str, ...] = tuple(dict.fromkeys((*WORLD_VOCABULARY, *POSTS_VOCABULARY)))
"""Every token piece that texts of the domains are made of, words with their leading space."""

MARKERS: tuple[str, ...] = tuple(piece for piece in VOCABULARY if piece.startswith("\n\n"))
"""The pieces that are not single words."""


def pretraining_document(seed: int, index: int) -> str:
    """A document of one domain and then of the next, in turn."""
    domains = list(DOMAINS.values())
    return domains[index % len(domains)].document(seed, index // len(domains))
