"""Pairs of the embedded domains with the gold of both responses."""

from functools import cache

from weakteach.worlds.domain import Domain, DomainPair, GoldScore


@cache
def judged_pairs(domain: Domain) -> list[tuple[DomainPair, GoldScore, GoldScore]]:
    pairs = [domain.pair(0, index) for index in range(6000)]
    return [
        (pair, domain.gold(pair.prompt, pair.response_1), domain.gold(pair.prompt, pair.response_2))
        for pair in pairs
    ]
