"""The answer of a study in words: a sentence for each claim, or for each comparison of students.

A sentence says that one group is better or worse than another only where that is decided at the
level of its family, after Holm. ``deciding.py`` describes the families of claims; the comparisons
of one experiment are one family. Primary claims come first, then all other answers; in each of
these groups, what is decided comes before what is not.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from weakteach.results.cells import Cell, beside
from weakteach.results.evidence import whole
from weakteach.results.findings import DECIDED, FAILED, Answer, ClaimRow
from weakteach.results.numbers import with_interval, with_kept
from weakteach.statistics.decisions import (
    CONTRADICTED,
    LEVEL,
    MOST_SEEDS,
    SUPPORTED,
    Claim,
    Decision,
    Evidence,
    decide,
)
from weakteach.statistics.estimate import CONFIDENCE, Estimate
from weakteach.statistics.joined import Joined, Missing, average, minus
from weakteach.statistics.rounds import Standing
from weakteach.statistics.schedule import MOST_ROUNDS, seeds_of
from weakteach.study.measures import Setting

# The kinds of measures that students are compared by.
OUTCOMES = ("reward", "accuracy")
# The words for the place of a comparison, by field, as they follow "With".
SAID: Mapping[str, Callable[[str], str]] = {
    "domain": lambda name: f"pairs of {name}",
    "weak": lambda name: f"teacher {name}",
    "teacher": lambda kind: "a reward head" if kind == "reward head" else f"a teacher of {kind}",
    "student": lambda name: f"student {name}",
    "fraction": lambda share: f"{share} of the pairs labeled",
    "beta": lambda value: f"beta {value}",
    "sft": lambda start: "SFT before DPO" if start == "with SFT" else "no SFT before DPO",
    "recipe": lambda changes: "the usual recipe" if changes == "usual" else changes,
    "of": lambda gold: f"gold {gold}",
}


# Roles that are compared wherever both are there, and how each of them is told.
COMPARED = (
    ("weak", "human", "weak labels", "human ones"),
    ("both", "few_long", "human labels of the labeled part with weak ones of the others",
     "these human labels alone"),
)  # fmt: skip


@dataclass(frozen=True)
class Contrast:
    """Two groups of students, and the outcome of the first minus that of the other, paired.
    ``where`` says which students, such as "With 1/8 of the pairs labeled, "; it may be empty."""

    where: str
    one: str
    other: str
    difference: Joined


def claim_answers(rows: Iterable[ClaimRow]) -> tuple[Answer, ...]:
    """A sentence for each claim, in their order."""
    return tuple(Answer(row.experiment, row.verdict, _of_claim(row)) for row in rows)


def decided_first(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    return tuple(sorted(answers, key=lambda one: one.verdict not in DECIDED))


def _of_claim(row: ClaimRow) -> str:
    said = f"{row.verdict.capitalize()}: {row.sentence}"
    if row.estimate is None:
        return f"{said} It is not measured: {row.needed}."
    when = f", in {row.round}" if row.round else ""
    needed = f"; {row.needed}" if row.needed else ""
    found = f"{_shown(row.estimate)}{_level(row.confidence)}{when}"
    return f"{said} Claimed: {row.measured}. Found: {found}{needed}."


def contrasts(cells: Sequence[Cell], sizes: Mapping[str, int]) -> list[Contrast]:
    """Weak minus human labels at every place that has both, then human labels with weak ones minus
    human labels alone; then each larger teacher minus the smallest one, over all places that both
    label. ``sizes`` holds the parameters of models by their names: teachers of unknown or equal
    size are not compared."""
    found: list[Contrast] = []
    for one, other, this, that in COMPARED:
        pairs = [
            (cell, there)
            for cell in cells
            if cell.role == one and cell.kind in OUTCOMES and (there := beside(cell, other, cells))
        ]
        places = [cell for cell, _ in pairs]
        found += [
            Contrast(_where(cell, places), this, that, minus(whole(cell), whole(there)))
            for cell, there in pairs
        ]
    weak = [c for c in cells if c.role == "weak" and c.kind in OUTCOMES]
    return found + _of_teachers([cell for cell in weak if beside(cell, "human", cells)], sizes)


def _of_teachers(weak: Sequence[Cell], sizes: Mapping[str, int]) -> list[Contrast]:
    by_teacher: dict[str, dict[Setting, Cell]] = {}
    for cell in weak:
        if cell.setting.weak in sizes:
            place = replace(cell.setting, weak="")
            by_teacher.setdefault(cell.setting.weak, {})[place] = cell
    names = sorted(by_teacher, key=lambda name: sizes[name])
    found = []
    for name in names[1:]:
        large, small = by_teacher[name], by_teacher[names[0]]
        both = [place for place in large if place in small]
        if sizes[name] == sizes[names[0]] or not both:
            continue
        means = [average([whole(of[place]) for place in both]) for of in (large, small)]
        over = "Over all of these, " if len(both) > 1 else ""
        found.append(
            Contrast(over, f"labels of {name}", f"those of the smaller {names[0]}", minus(*means))
        )
    return found


def _where(cell: Cell, among: Sequence[Cell]) -> str:
    """Words that tell the place of a cell from those of others; empty if nothing differs."""
    varying = [
        SAID[field.name](getattr(cell.setting, field.name))
        for field in fields(Setting)
        if len({getattr(other.setting, field.name) for other in among}) > 1
    ]
    if len({other.of for other in among}) > 1:
        varying.append(SAID["of"](cell.of))
    return f"With {' and '.join(varying)}, " if varying else ""


def contrast_answers(
    experiment: str, compared: Sequence[Contrast], standings: Sequence[Standing] | None = None
) -> tuple[Answer, ...]:
    """A sentence for each comparison, all of them decided as one family, whether or not they are
    measured yet. In a study in rounds, ``standings`` says where each comparison stands."""
    if standings is not None:
        return tuple(
            Answer(experiment, "not decided", _not_compared(one, _why_not(one)))
            if there.decision is None
            else _answer(experiment, one, there.decision, len(compared), there)
            for one, there in zip(compared, standings, strict=True)
        )
    decisions = iter(
        decide(
            [
                Evidence(Claim(one.where, "", "greater"), found.matrix, left_out=found.left_out)
                for one in compared
                if not isinstance(found := one.difference, Missing)
            ],
            len(compared),
        )
    )
    return tuple(
        Answer(experiment, "not decided", _not_compared(one, one.difference))
        if isinstance(one.difference, Missing)
        else _answer(experiment, one, next(decisions), len(compared))
        for one in compared
    )


def failure_answers(failures: Iterable[tuple[str, str, str]]) -> tuple[Answer, ...]:
    """A sentence for each reason for which roles failed; ``failures`` are arm, roles and reason."""
    counts = Counter((roles, why) for _, roles, why in failures)
    return tuple(
        Answer("", FAILED, f"Failed in {_arms(n)}, {roles}: {why.rstrip('.')}.")
        for (roles, why), n in counts.items()
    )


def _arms(count: int) -> str:
    return "1 arm" if count == 1 else f"{count:,} arms"


def _answer(
    experiment: str, one: Contrast, decision: Decision, family: int, there: Standing | None = None
) -> Answer:
    shown, needed = _shown(decision.estimate), more_needed(decision)
    if there:
        shown = f"{shown}{_level(there.confidence)}, in {round_said(there)}"
        needed = needed_after(there)
    if decision.verdict in (SUPPORTED, CONTRADICTED):
        verdict = "better" if decision.verdict == SUPPORTED else "worse"
        sentence = f"{one.where}{one.one} teach {verdict} than {one.other}: {shown}."
        return Answer(experiment, verdict, _capital(sentence))
    alone = decision.p_alone < LEVEL
    among = f", told apart alone but not among {family} comparisons" if alone else ""
    sentence = f"{one.where}{one.one} and {one.other} are not told apart ({shown}{among})"
    return Answer(experiment, "not decided", _capital(f"{sentence}; {needed}."))


def _why_not(one: Contrast) -> Missing:
    """Why no round has evidence on a comparison."""
    if isinstance(one.difference, Missing):
        return one.difference
    return Missing("the first round is under way")


def _not_compared(one: Contrast, why: Missing) -> str:
    return _capital(f"{one.where}{one.one} and {one.other} are not compared: {why.reason}.")


def more_needed(decision: Decision) -> str:
    """What would decide an undecided claim, or why that is not known; empty for a decided one."""
    if decision.verdict in (SUPPORTED, CONTRADICTED):
        return ""
    if not decision.tested:
        return decision.reason
    for wanted, there, name in (
        (decision.seeds_needed, decision.estimate.seeds, "seed"),
        (decision.prompts_needed, decision.estimate.prompts, "test prompt"),
    ):
        if wanted is not None:
            more = max(wanted - there, 1)
            return f"about {more:,} more {name}{'s' * (more > 1)} would decide it"
    return f"not even {MOST_SEEDS:,} seeds would decide it"


def round_said(standing: Standing) -> str:
    """The round of a standing in words."""
    return f"round {standing.round} of {seeds_of(standing.round)} seeds"


def needed_after(standing: Standing) -> str:
    """What would decide a question after its last round; empty if it is decided, or not begun."""
    decision = standing.decision
    if standing.decided or decision is None:
        return ""
    there = "given up" if standing.given_up else "open"
    if not decision.tested:
        return f"{there}: {decision.reason}"
    if decision.seeds_needed is not None:
        return f"{there}: about {decision.seeds_needed:,} seeds would decide it"
    if not standing.given_up and standing.power:
        chance = f"a round to come decides it with a chance of {standing.power:.0%}"
        return f"open: {chance}, and many more seeds would hardly raise that"
    return f"{there}: not even {seeds_of(MOST_ROUNDS):,} seeds would decide it"


def _level(confidence: float) -> str:
    """Words for the confidence of an interval; empty if it is a 95% interval."""
    return "" if confidence == CONFIDENCE else f", a {100 * confidence:.4g}% interval"


def _shown(estimate: Estimate) -> str:
    value, ends = with_interval(estimate)
    signed = f"+{value}" if estimate.value > 0 and float(value.replace(",", "")) else value
    return ", ".join(filter(None, (f"{signed} {ends}".strip(), with_kept(estimate))))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
