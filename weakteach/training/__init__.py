"""Training by TRL's losses. Users of TRL need ``weighted_dpo_trainer`` alone; everything else is in
the modules."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weakteach.training.weighted import weighted_dpo_trainer

__all__ = ["weighted_dpo_trainer"]


def __getattr__(name: str) -> Any:
    """Import what is exported when it is asked for: plans, too, import recipes from this package,
    and must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weakteach.training.weighted import weighted_dpo_trainer

    return weighted_dpo_trainer
