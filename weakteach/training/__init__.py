"""Training by TRL's losses. What users of TRL need is ``weighted_dpo_trainer``; all else stands in
the modules."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weakteach.training.weighted import weighted_dpo_trainer

__all__ = ["weighted_dpo_trainer"]


def __getattr__(name: str) -> Any:
    """What is exported, imported when it is asked for: plans read recipes of this package, too, and
    must not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weakteach.training.weighted import weighted_dpo_trainer

    return weighted_dpo_trainer
