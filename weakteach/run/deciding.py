"""Options of a study that is decided in rounds of seeds, and the seeds that follow from them."""

import re
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter, validators

from weakteach.artifacts.errors import UserError
from weakteach.statistics.schedule import rounds_of

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
FIRST_SEED, MAX_SEEDS = 10, 16


@dataclass(frozen=True)
class Deciding:
    """Seeds where an answer is missing."""

    decide: Annotated[bool | None, Parameter(negative="--no-decide")] = None
    """Go in rounds of 2, 4, 8, ... seeds, each over what open questions need, until every question
    is decided or given up. The default of paper.py, unless you give --seeds; --no-decide computes
    the fixed grid."""
    max_seeds: int | None = None
    """Most seeds of --decide: 2, 4, 8, ...; 16 without it."""
    first_seed: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None
    """The first of the seeds of --decide, 10 without it; the others follow it."""
    budget: str | None = None
    """Start no arm later than this: 90s, 45m or 2h from the start. Arms under way are finished, so
    the study ends somewhat later. The same command with a larger budget goes on."""

    def seeds(self, default: bool, given: tuple[int, ...]) -> tuple[int, ...]:
        """The seeds of all rounds, in their order; none where the grid is fixed. ``default`` says
        whether the sweep decides in rounds unless the user says otherwise, ``given`` are the seeds
        that the user names. Raises UserError."""
        if not (default and not given if self.decide is None else self.decide):
            for name in ("max_seeds", "first_seed"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name.replace('_', '-')} goes with --decide alone")
            return ()
        if given:
            raise UserError(
                "--seeds is a fixed grid's: with --decide, say with --first-seed and --max-seeds "
                "which seeds its rounds may take"
            )
        most = MAX_SEEDS if self.max_seeds is None else self.max_seeds
        try:
            rounds_of(most)
        except ValueError as error:
            raise UserError(f"--max-seeds: {error}") from error
        first = FIRST_SEED if self.first_seed is None else self.first_seed
        return tuple(range(first, first + most))

    @property
    def seconds(self) -> float | None:
        """The seconds of the budget; None without one. Raises UserError."""
        if self.budget is None:
            return None
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.budget.strip())
        if not found:
            raise UserError(f"--budget: {self.budget} is no time; write it such as 90s, 45m or 2h")
        return float(found[1]) * UNITS[found[2]]
