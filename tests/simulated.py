"""Claims whose true differences are known, in studies of 2, 4, 8 and 16 seeds and 20 prompts."""

from dataclasses import replace

import numpy as np

from weakteach.statistics.decisions import Claim, Evidence, Kind
from weakteach.statistics.rounds import Standing, decide_rounds
from weakteach.statistics.schedule import seeds_of

ROUNDS = 4
PROMPTS = 20
# Of the variance that comes from seeds, what the claims of a study have in common.
SHARED = 0.5


def claim(
    difference: np.ndarray, kind: Kind = "greater", margin: np.ndarray | float | None = None
) -> Evidence:
    return Evidence(Claim("C", "A sentence.", kind), difference, margin)


def cut(whole: Evidence, number: int) -> Evidence:
    """What the seeds of a round say."""
    seeds = seeds_of(number)
    margin = whole.margin[:seeds] if isinstance(whole.margin, np.ndarray) else whole.margin
    return replace(whole, difference=whole.difference[:seeds], margin=margin)


def after(whole: list[Evidence], rounds: int, most: int = ROUNDS) -> tuple[Standing, ...]:
    return decide_rounds([[cut(one, r) for one in whole] for r in range(1, rounds + 1)], most)


def drawn(
    rng: np.random.Generator,
    mean: float,
    shared: float = SHARED,
    common: np.ndarray | None = None,
) -> np.ndarray:
    """Outcomes [16, PROMPTS] of sd 1 from seeds, a share of it in common with other claims, and
    sd 1 from each of prompts and residuals."""
    seeds = seeds_of(ROUNDS)
    common = rng.normal(size=seeds) if common is None else common
    own = rng.normal(size=seeds)
    by_seed = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    by_prompt = rng.normal(size=PROMPTS)
    return mean + by_seed[:, None] + by_prompt + rng.normal(size=(seeds, PROMPTS))


def at_boundary(
    rng: np.random.Generator, common: np.ndarray, kind: Kind, measured: bool
) -> Evidence:
    """A claim whose true difference is on its boundary, so that whatever is said of it is wrong.
    ``measured`` margins are a tenth of a gain that is drawn, too."""
    if kind == "greater":
        return claim(drawn(rng, 0.0, common=common))
    margin = {"at_least": 2.0, "close": 6.0}[kind]
    difference = drawn(rng, -margin if kind == "at_least" else margin, common=common)
    gain = drawn(rng, 10 * margin, common=common)
    return claim(difference, kind, 0.1 * gain if measured else margin)
