"""The rounds of a study: their seeds and their shares of the error, fixed in advance."""

SHARES = (0.1, 0.2, 0.3, 0.2, 0.1)
MOST_ROUNDS = 10


def share(round: int) -> float:
    """The share of the error of all rounds that a round (from 1 on) has."""
    if round <= len(SHARES):
        return SHARES[round - 1]
    return (1 - sum(SHARES)) / 2 ** (round - len(SHARES))


def seeds_of(round: int) -> int:
    """How many seeds a round has, including those of the rounds before."""
    return int(2**round)


def rounds_of(seeds: int) -> int:
    """How many rounds this number of seeds makes. Raises ValueError unless it is 2, 4, 8, ...: a
    last round with fewer seeds would be looked at again once there are more."""
    rounds = max(1, seeds.bit_length() - 1)
    if seeds != seeds_of(rounds) or rounds > MOST_ROUNDS:
        raise ValueError(f"Rounds are of 2, 4, 8, ... {seeds_of(MOST_ROUNDS)} seeds, not {seeds}")
    return rounds
