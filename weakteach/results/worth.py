"""How many human labels weak labels are worth, from students of both at several fractions."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from weakteach.results.cells import Cell
from weakteach.results.findings import TableOf, Value
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.decisions import ONE_SEED
from weakteach.statistics.estimate import Estimate
from weakteach.statistics.exchange import exchange_rate
from weakteach.statistics.joined import Crossing, Missing, aligned
from weakteach.study.experiment import Experiment

COLUMNS = ("teacher", "labeled", "human labels", "weak labels", "1,000 are worth", "told")
NOTE = (
    "Students of the human labels of the labeled part, with and without weak labels of the rest, "
    "all trained for as many updates as all pairs give. The outcome of human labels alone is taken "
    "as a line over the logarithm of their number; the worth is how many more of them would teach "
    "as well. Its 95% interval is for new seeds and new prompts, and open where the human labels "
    "that were tried do not tell; with one seed it holds for new prompts alone. Below 0, weak "
    "labels did harm."
)


def worth_table(
    experiment: Experiment,
    cells: Sequence[Cell],
    outcomes: Outcomes,
    price: float | None = None,
) -> TableOf | None:
    """A table of how many human labels a thousand weak labels are worth, for each teacher and
    fraction, and of their value at the ``price`` of a human label. None unless the experiment has
    students of human and weak labels, and of human labels alone at two or more fractions."""
    rows: list[tuple[Value, ...]] = []
    whole = [cell for cell in cells if cell.kind in ("reward", "accuracy") and not cell.pending]
    for both in (cell for cell in whole if cell.role == "both"):
        alone = [one for one in whole if one.role == "few_long" and _but_fraction(one, both)]
        human, weak = _labels(experiment, both, outcomes)
        numbers = [_labels(experiment, one, outcomes)[0] for one in alone]
        if len(set(numbers)) < 2 or min(human, *numbers) < 1:
            continue
        joined = aligned([both.outcome, *(one.outcome for one in alone)])
        worth, told = _worth(joined, numbers, human, weak)
        money = () if price is None else (_times(worth, price),)
        place = (both.setting.weak, both.setting.fraction, human, weak)
        rows.append((*place, worth, *money, told))
    title = "What weak labels are worth in human ones"
    columns = COLUMNS if price is None else (*COLUMNS[:-1], f"at {price:g} a label", COLUMNS[-1])
    return TableOf(title, columns, tuple(rows), NOTE) if rows else None


def _but_fraction(one: Cell, other: Cell) -> bool:
    """Whether two cells differ at most in their fraction and in their teacher: students of human
    labels alone have no teacher."""
    where = {"weak": "", "teacher": "", "fraction": ""}
    same = replace(one.setting, **where) == replace(other.setting, **where)
    return same and (one.kind, one.of) == (other.kind, other.of)


def _labels(experiment: Experiment, cell: Cell, outcomes: Outcomes) -> tuple[int, int]:
    """The numbers of human labels in the labeled part and of weak labels in the rest at the cell's
    fraction, means over seeds; 0 if not known. The pairs of the rest that have a human choice are
    those on which weak and human labels were compared; the labeled part has as many of them as the
    fraction says."""
    place = (cell.setting.domain, cell.setting.fraction)
    rest = [
        (facts["labeled"], facts["compared"])
        for one in experiment.measures
        if one.kind == "agreement" and (one.setting.domain, one.setting.fraction) == place
        if (facts := outcomes.facts(one))
    ]
    if not rest:
        return 0, 0
    weak, chosen = (sum(counts) / len(rest) for counts in zip(*rest, strict=True))
    share = float(Fraction(cell.setting.fraction))
    return round(chosen * share / (1 - share)), round(weak)


def _times(worth: Estimate | None, price: float) -> Estimate | None:
    if worth is None:
        return None
    return replace(worth, value=worth.value * price, low=worth.low * price, high=worth.high * price)


def _worth(
    joined: list[Crossing] | Missing, numbers: Sequence[int], human: int, weak: int
) -> tuple[Estimate | None, str]:
    """The worth (None if it is not known), and "yes" if its interval is closed and for new seeds,
    else why not."""
    if isinstance(joined, Missing):
        return None, f"no: {joined.reason}"
    together, *others = (one.matrix for one in joined)
    found = exchange_rate(dict(zip(numbers, others, strict=True)), together, human, weak)
    if found.worth is None:
        return None, "no: human labels alone do not tell"
    low, high = (float("nan") if end is None else end for end in (found.low, found.high))
    one, seeds = joined[0], len(joined[0].seeds)
    worth = Estimate(
        found.worth, low, high, seeds=seeds, prompts=len(one.ids), covers_seeds=seeds > 1,
        left_out=one.left_out,
    )  # fmt: skip
    if seeds == 1:
        return worth, f"no: {ONE_SEED}"
    return worth, "yes" if found.told else "no: the interval is open"
