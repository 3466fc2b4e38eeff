"""Names and shapes of the embedded models, and where the shipped ones lie.

Imports no torch, so that names can be looked up in processes that do not load it.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

BASES = Path(__file__).parent / "bases"
SHIPPED = ("opt-45k", "opt-230k", "opt-1m")
DOCUMENTS = 131_072
"""How many documents the shipped models have read, each once; half are of each domain."""
ARCHITECTURES = ("opt", "llama", "mistral", "gemma", "pythia", "gpt-neo")


@dataclass(frozen=True)
class Size:
    """A shape that all architectures share. Its name tells how many parameters OPT has at this
    shape, without the position embeddings."""

    name: str
    hidden: int
    layers: int
    heads: int
    init_std: float
    peak_lr: float


@dataclass(frozen=True)
class TinyModel:
    """An architecture at a size."""

    architecture: str
    size: Size

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.size.name}"

    @property
    def parameters(self) -> int:
        """Number of parameters in the layers alone: 12·hidden² weights and 13·hidden biases and
        norm weights in each, which is exact for OPT and nearly so for the others."""
        return self.size.layers * (12 * self.size.hidden**2 + 13 * self.size.hidden)


# The standard deviation of the initial weights shrinks with the width: with OPT's 0.02 models this
# narrow learn visibly more slowly.
SIZES = (
    Size("45k", 32, 2, 2, init_std=0.10, peak_lr=5e-3),
    Size("230k", 64, 4, 4, init_std=0.08, peak_lr=3e-3),
    Size("1m", 128, 5, 4, init_std=0.06, peak_lr=3e-3),
    Size("4m", 256, 5, 8, init_std=0.04, peak_lr=1.5e-3),
)
FAMILY: dict[str, TinyModel] = {
    model.name: model for model in (TinyModel(*pair) for pair in product(ARCHITECTURES, SIZES))
}


def tiny_model(name: str) -> TinyModel:
    """The embedded model of that name; ValueError for any other name."""
    if name not in FAMILY:
        sizes = ", ".join(size.name for size in SIZES)
        raise ValueError(
            f"unknown embedded model {name!r}: join one of {', '.join(ARCHITECTURES)} and one of "
            f"{sizes}, as in opt-230k"
        )
    return FAMILY[name]


def base_folder(name: str) -> Path:
    """The folder of a shipped pretrained model; ValueError if there is none of that name."""
    if tiny_model(name).name not in SHIPPED:
        raise ValueError(
            f"{name} is not shipped with the package: run `weakteach pretrain {name} --out DIR` "
            f"once and give DIR as the model"
        )
    return BASES / name
