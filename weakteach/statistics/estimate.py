"""A value with its interval."""

from dataclasses import KW_ONLY, dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; the ends are NaN where they are not known.

    ``p`` is two-sided, of a true value of 0 (NaN where nothing is tested). ``seeds`` and
    ``prompts`` count what the value was taken over, and ``left_out`` the other prompts that there
    were, of which not everything that it is made of has an outcome. Unless ``covers_seeds``,
    interval and p hold for new prompts, but for these seeds alone.
    """

    value: float
    low: float
    high: float
    _: KW_ONLY
    p: float = float("nan")
    seeds: int = 0
    prompts: int = 0
    covers_seeds: bool = False
    left_out: int = 0
