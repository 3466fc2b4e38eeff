"""Gold reward accuracy (GRA), by which CW-PO (arXiv 2603.04968) compares: how often a student is
better than it was before DPO."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weakteach.results.cells import Cell, cells_of, human_of
from weakteach.results.findings import MINUS_HUMAN, TableOf, Value
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.joined import Joined, Missing, aligned, minus
from weakteach.study.experiment import Experiment

AFTER, BEFORE = "reward", "start_reward"
NOTE = (
    "Share of test prompts to which the student responds with a greater gold reward (its mean over "
    "samples) than the SFT model that its DPO started from; a tie counts as not better. Students "
    "whose labels or sizes differ started from different models: between them it does not tell who "
    "is better. 95% intervals for new seeds and new prompts."
)


def gra_table(experiment: Experiment, outcomes: Outcomes, place: str) -> TableOf | None:
    """The GRA of every student whose start was measured as well; None if there is no such student.
    ``place`` is the heading of the column that stands for the x axis."""
    cells = cells_of(experiment, outcomes, (AFTER, BEFORE))
    after = [cell for cell in cells if cell.kind == AFTER]
    found = [(cell, better(cell, cells)) for cell in after]
    shown = [(cell, one) for cell, one in found if one is not None]
    if not shown:
        return None
    several = len({cell.series for cell, _ in shown}) > 1
    rows: list[tuple[Value, ...]] = []
    for cell, share in shown:
        human = human_of(cell, after)
        names = (cell.x, cell.series) if several else (cell.x,)
        rows.append((*names, *_told(share, better(human, cells) if human else None, cell)))
    series = ("students of",) if several else ()
    columns = (place, *series, "GRA", MINUS_HUMAN, "seeds, prompts")
    return TableOf("Gold reward accuracy (GRA)", columns, tuple(rows), NOTE)


def better(cell: Cell, cells: Sequence[Cell]) -> Joined | None:
    """1 at each seed and prompt where the student of a cell has a greater gold reward than it had
    before DPO, else 0; None where its start is not measured."""
    same = (cell.setting, cell.role, cell.of)
    starts = [c for c in cells if c.kind == BEFORE and (c.setting, c.role, c.of) == same]
    if not starts or not starts[0].seeds or not cell.seeds:
        return None
    both = aligned([cell.outcome, starts[0].outcome])
    if isinstance(both, Missing):
        return both
    after, before = both
    return replace(after, matrix=(after.matrix > before.matrix).astype(np.float64))


def _told(share: Joined, human: Joined | None, cell: Cell) -> tuple[Value, ...]:
    if isinstance(share, Missing):
        return None, None, share.reason
    difference: Value = None
    if human is not None and cell.role != "human":
        compared = minus(share, human)
        difference = compared.reason if isinstance(compared, Missing) else compared.mean()
    return share.share(), difference, f"{len(share.seeds)}, {len(share.ids)}"
