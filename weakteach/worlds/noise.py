"""Noisy "human" choices made from gold rewards."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class BradleyTerry:
    """Chooses response 1 with probability sigmoid((gold_1 - gold_2) / temperature)."""

    temperature: float = 1.23

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the temperature must be above 0, not {self.temperature}")

    def choice(self, gold_1: float, gold_2: float, uniform: float) -> int:
        """1 or 2, by a uniform number in [0, 1) that the caller draws for the pair.

        Exchanging the responses and taking 1 - uniform chooses the same text.
        """
        half = 0.5 * (gold_1 - gold_2) / self.temperature
        return 1 if uniform < 0.5 * (1 + math.tanh(half)) else 2


@dataclass(frozen=True)
class UniformFlip:
    """Chooses the worse response at a fixed rate, whatever the margin, and else the better one."""

    rate: float = 0.28

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 0.5:
            raise ValueError(f"the rate of flips must lie in [0, 0.5], not {self.rate}")

    def choice(self, gold_1: float, gold_2: float, uniform: float) -> int:
        """1 or 2, like `BradleyTerry.choice`; between equal golds it is a fair draw."""
        if gold_1 == gold_2:
            return 1 if uniform < 0.5 else 2
        return 1 if uniform < (1 - self.rate if gold_1 > gold_2 else self.rate) else 2


Noise = BradleyTerry | UniformFlip
