"""A value with its interval."""

from dataclasses import KW_ONLY, dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; each of the three is NaN where it is not known.

    ``p`` is the two-sided p-value of a true value of 0 (NaN where nothing is tested). ``seeds`` and
    ``prompts`` count what the value was taken over. ``left_out`` counts the prompts that were left
    out because an outcome that the value is made of is missing there. Unless ``covers_seeds``, the
    interval and p hold for new prompts, but only for these seeds.
    """

    # Files leave out what is not known.
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    _: KW_ONLY
    p: float = float("nan")
    seeds: int = 0
    prompts: int = 0
    covers_seeds: bool = False
    left_out: int = 0
