"""Names and shapes of the embedded family of tiny OPT models, and where the shipped ones lie.

Imports no torch: names are looked up where none is loaded.
"""

from dataclasses import dataclass
from pathlib import Path

BASES = Path(__file__).parent / "bases"


@dataclass(frozen=True)
class TinyOpt:
    """A size of the family. The name counts its parameters without the position embeddings."""

    name: str
    hidden: int
    layers: int
    heads: int
    init_std: float
    peak_lr: float

    @property
    def parameters(self) -> int:
        """Of the layers alone: 12·hidden² weights and 13·hidden biases and norms in each."""
        return self.layers * (12 * self.hidden**2 + 13 * self.hidden)


# The standard deviation of the initial weights shrinks with the width: with OPT's 0.02 models this
# narrow learn visibly more slowly.
FAMILY: dict[str, TinyOpt] = {
    size.name: size
    for size in (
        TinyOpt("opt-45k", 32, 2, 2, init_std=0.10, peak_lr=5e-3),
        TinyOpt("opt-230k", 64, 4, 4, init_std=0.08, peak_lr=3e-3),
        TinyOpt("opt-1m", 128, 5, 4, init_std=0.06, peak_lr=3e-3),
        TinyOpt("opt-4m", 256, 5, 8, init_std=0.04, peak_lr=1.5e-3),
    )
}


def tiny_opt(name: str) -> TinyOpt:
    """The size of that name; ValueError for any other name."""
    if name not in FAMILY:
        raise ValueError(f"unknown embedded model {name!r}: choose one of {', '.join(FAMILY)}")
    return FAMILY[name]


def base_folder(name: str) -> Path:
    """The folder of a shipped pretrained model; ValueError if there is none of that name."""
    folder = BASES / tiny_opt(name).name
    if not (folder / "model.safetensors").is_file():
        raise ValueError(
            f"{name} is not shipped with the package: run `weakteach pretrain {name} --out DIR` "
            f"once and give DIR as the model"
        )
    return folder
