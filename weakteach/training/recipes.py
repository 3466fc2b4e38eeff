"""What a training run does, as values; part of a step's identity."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

# Losses of DPO's kind: DPO itself (Rafailov et al. 2023, eq. 7), IPO (Azar et al. 2023, eq. 17, by
# token as in TRL), two that expect wrong labels, robust DPO (Chowdhury et al. 2024, eq. 9) and
# conservative DPO (Mitchell 2023), and a hinge (Zhao et al. 2023).
Loss = Literal["dpo", "ipo", "rdpo", "cdpo", "hinge"]
EXPECT_WRONG_LABELS = ("rdpo", "cdpo")
LoraBase = Literal["whole", "nf4"]
# What a recipe without changes is called.
USUAL = "usual"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) on the named projections instead of full training, over a
    ``base`` in the dtype of the computation, or in 4 bits (NF4; QLoRA, Dettmers et al. 2023)."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: str = "all-linear"
    base: LoraBase = "whole"

    @property
    def over_nf4(self) -> bool:
        return self.base == "nf4"


@dataclass(frozen=True)
class Schedule:
    """Optimization with AdamW. ``batch`` is global: pairs per update over all workers.

    ``steps`` fixes the number of updates, whatever the data's size, and takes the place of
    ``epochs``. ``warmup`` is the share of updates with a rising learning rate.
    """

    learning_rate: float
    batch: int
    epochs: float = 1.0
    steps: int | None = None
    scheduler: str = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0

    def updates(self, pairs: int) -> int:
        """Updates that training on that many pairs takes; the last batch of an epoch may be
        smaller."""
        return self.steps or math.ceil(self.epochs * math.ceil(pairs / self.batch))


@dataclass(frozen=True)
class SftRecipe:
    """Maximum likelihood of the chosen response given the prompt."""

    schedule: Schedule = Schedule(learning_rate=1e-5, batch=32)
    lora: Lora | None = None


@dataclass(frozen=True)
class RewardRecipe:
    """Maximum likelihood of the choices under a scalar head (Bradley & Terry 1952): the chosen
    response wins with probability σ(reward difference). The defaults are those of CW-PO."""

    schedule: Schedule = Schedule(learning_rate=1e-5, batch=32, epochs=5.0)
    lora: Lora | None = None

    def __post_init__(self) -> None:
        if self.lora and self.lora.over_nf4:
            raise ValueError("A reward head's adapters are merged: they need a whole base, not nf4")


@dataclass(frozen=True)
class DpoRecipe:
    """Direct preference optimization; ``beta`` scales the reward.

    ``noise`` is the share of labels, below one half, that "rdpo" and "cdpo" take to be wrong. With
    ``soft``, for "cdpo" alone, each pair has its own noise, 1 minus the ``probability`` of its
    label. With ``weighted`` each pair's loss counts as much as the ``weight`` of its label. Raises
    ValueError for a ``noise`` or ``soft`` that the loss does not read, or for both together.
    """

    schedule: Schedule = Schedule(learning_rate=5e-5, batch=16)
    beta: float = 0.1
    lora: Lora | None = Lora()
    loss: Loss = "dpo"
    noise: float = 0.0
    soft: bool = False
    weighted: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 0.5:
            raise ValueError(f"noise is {self.noise}, not a share from 0 to below one half")
        if (self.noise or self.soft) and self.loss not in EXPECT_WRONG_LABELS:
            losses = " and ".join(EXPECT_WRONG_LABELS)
            raise ValueError(f"Only {losses} expect wrong labels: the loss {self.loss} does not")
        if self.soft and self.loss == "rdpo":
            raise ValueError(
                "Soft labels need the loss cdpo: rdpo divides by 1 - 2·noise, so that the least "
                "sure pairs would count hundreds of times as much as the others"
            )
        if self.noise and self.soft:
            raise ValueError("Give the noise of all pairs or take each pair's own, not both")


@cache  # called for every measure of a study, with few recipes
def changes_of(recipe: DpoRecipe, usual: DpoRecipe) -> str:
    """Where a recipe differs from the usual one, such as ``lora.rank 16``."""
    mine, theirs = (dict(_leaves("", asdict(of))) for of in (recipe, usual))
    changed = [name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]
    return ", ".join(f"{name} {mine.get(name, 'none')}" for name in changed) or USUAL


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else key, inner)
    elif value is not None:
        yield name, value
