"""Names and shapes of the embedded family of tiny OPT models, and where the shipped ones lie."""

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


def base_folder(name: str) -> Path:
    """The shipped model folder of that size.

    Raises ValueError for an unknown name, and for a size that is not shipped.
    """
    if name not in FAMILY:
        raise ValueError(f"Unknown size {name!r}: the embedded family has {', '.join(FAMILY)}")
    folder = BASES / name
    if not (folder / "model.safetensors").exists():
        raise ValueError(
            f"{name} is not shipped: run `weakteach pretrain {name} --out DIR` and give DIR as the "
            "model"
        )
    return folder
