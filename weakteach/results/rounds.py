"""A study that is decided in rounds of seeds: its questions, the measures that each question needs,
and where each question stands.

All of this follows from the artifacts that exist, which are read anew every time. To find what a
question needs, the cells of its experiment are taken away one by one: it needs each cell without
which it has no evidence.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from weakteach.results.answers import OUTCOMES, contrasts
from weakteach.results.beyond import ALL_STATEMENTS
from weakteach.results.cells import Cell, Measured, cells_of
from weakteach.results.evidence import KINDS, Found, Statement, claim_evidence
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.decisions import Claim, Evidence
from weakteach.statistics.joined import Column, Joined, Missing, crossed
from weakteach.statistics.rounds import Standing, decide_rounds
from weakteach.statistics.schedule import rounds_of, seeds_of
from weakteach.study.experiment import Experiment
from weakteach.study.measures import Measure, Setting

PRIMARY = "primary"
# What identifies a measure apart from its seed: setting, kind, role and ``of``.
Key = tuple[Setting, str, str, str]


@dataclass(frozen=True)
class Question:
    """A claim, or a comparison of students, and the family that it is decided in. ``evidence``
    computes its evidence from those cells of its experiment whose kind is among ``kinds``.
    ``claim`` is the id of a claim, empty for a comparison."""

    experiment: str
    family: str
    claim: str
    kinds: tuple[str, ...]
    evidence: Callable[[Found], Evidence | Missing]


@dataclass(frozen=True)
class Survey:
    """How far a study is. ``number`` is the round whose arms come next or are under way, None if
    there is nothing more to do. ``wanted`` holds the measures of that round: in the first round
    those of all experiments, later those that each open question needs of its experiment, one
    question after the other. ``experiments`` hold all measures that were asked for so far.
    ``standings`` say where each of the ``questions`` stands."""

    number: int | None
    wanted: tuple[Experiment, ...]
    experiments: tuple[Experiment, ...]
    questions: tuple[Question, ...]
    standings: tuple[Standing, ...]


def family_of(statement: Statement) -> str:
    return PRIMARY if statement.primary else statement.experiment


def family_size(family: str, present: int) -> int:
    """How many claims share the error of a family that has ``present`` claims in this study. The
    primary family has the same size in every sweep, so that a claim's share does not depend on
    which others are asked beside it."""
    return sum(one.primary for one in ALL_STATEMENTS) if family == PRIMARY else present


def asked_of(experiments: Sequence[Experiment]) -> list[Statement]:
    """The statements whose experiment is there and measures what they are about."""
    measured = {(one.id, measure.kind) for one in experiments for measure in one.measures}
    return [one for one in ALL_STATEMENTS if (one.experiment, one.kind) in measured]


def questions_of(
    experiments: Sequence[Experiment], sizes: Mapping[str, int]
) -> tuple[Question, ...]:
    """The claims that the experiments ask, the primary ones first, and then the comparisons of the
    experiments that ask none."""
    stated = asked_of(experiments)
    found = [
        Question(one.experiment, family_of(one), one.claim.id, KINDS, partial(claim_evidence, one))
        for one in sorted(stated, key=lambda one: not one.primary)
    ]
    claimed = {one.experiment for one in stated}
    for one in experiments:
        if one.id not in claimed:
            count = len(contrasts(cells_of(_of_two_seeds(one), _AnyOutcome(), OUTCOMES), sizes))
            found += [
                Question(one.id, one.id, "", OUTCOMES, partial(_contrast_evidence, place))
                for place in range(count)
            ]
    return tuple(found)


def _contrast_evidence(place: int, found: Found) -> Evidence | Missing:
    one = contrasts(found.cells, found.sizes)[place]
    if isinstance(one.difference, Missing):
        return one.difference
    difference = one.difference
    return Evidence(
        Claim(one.where, "", "greater"), difference.matrix, left_out=difference.left_out
    )


def standings_of(
    questions: Sequence[Question],
    experiments: Sequence[Experiment],
    outcomes: Outcomes,
    sizes: Mapping[str, int],
    seeds: Sequence[int],
) -> tuple[Standing, ...]:
    """Where the questions stand, judged by those measures of the experiments that are done.
    ``seeds`` are the seeds of all rounds, in their order."""
    return _standings(questions, experiments, outcomes, sizes, seeds, rounds_of(len(seeds)))


def _standings(
    questions: Sequence[Question],
    experiments: Sequence[Experiment],
    outcomes: Outcomes,
    sizes: Mapping[str, int],
    seeds: Sequence[int],
    until: int,
) -> tuple[Standing, ...]:
    standings = [Standing() for _ in questions]
    rows: list[list[Evidence | None]] = []
    for number in range(1, until + 1):
        evidence = _Round(experiments, outcomes, sizes, seeds[: seeds_of(number)])
        rows.append(
            [
                evidence.of(one) if there.open and there.round == number - 1 else None
                for one, there in zip(questions, standings, strict=True)
            ]
        )
        if not any(rows[-1]):
            break
        for family, places in _families(questions).items():
            absent = [None] * (family_size(family, len(places)) - len(places))
            of_family = [[*(row[place] for place in places), *absent] for row in rows]
            found = decide_rounds(of_family, rounds_of(len(seeds)))
            for place, standing in zip(places, found[: len(places)], strict=True):
                standings[place] = standing
    return tuple(standings)


def _families(questions: Sequence[Question]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, one in enumerate(questions):
        found.setdefault(one.family, []).append(place)
    return found


@dataclass
class _Round:
    """The evidence that the seeds of a round give. Cells are computed once for each experiment."""

    experiments: Sequence[Experiment]
    outcomes: Outcomes
    sizes: Mapping[str, int]
    seeds: Sequence[int]
    _found: dict[tuple[str, tuple[str, ...]], Found] = field(default_factory=dict)

    def of(self, question: Question) -> Evidence | None:
        """The evidence on a question, None unless all seeds of the round contribute to it."""
        key = question.experiment, question.kinds
        if key not in self._found:
            (one,) = (e for e in self.experiments if e.id == question.experiment)
            cut = _of_seeds(one, self.seeds)
            cells = cells_of(cut, self.outcomes, question.kinds)
            self._found[key] = Found(tuple(cells), self.sizes)
        evidence = question.evidence(self._found[key])
        if isinstance(evidence, Missing) or len(evidence.difference) != len(self.seeds):
            return None
        return evidence


def survey(
    universe: Sequence[Experiment],
    outcomes: Outcomes,
    sizes: Mapping[str, int],
    seeds: Sequence[int],
    failed: Collection[str] = (),
) -> Survey:
    """How far a study is. The ``universe`` holds its experiments over all ``seeds``.

    The first round is the whole study on its first seeds. A later round has the measures that open
    questions need on its new seeds, one question after the other, so that a round that is cut
    short still decides some questions. ``failed`` holds fingerprints of measures that failed. A
    question that needs one of them has no evidence in that round, and takes part in no later round
    until it has.
    """
    questions = questions_of(universe, sizes)
    needs = [needs_of(one, universe, sizes) for one in questions]
    experiments = [replace(one, measures=()) for one in universe]
    standings: tuple[Standing, ...] = tuple(Standing() for _ in questions)
    for number in range(1, rounds_of(len(seeds)) + 1):
        new = seeds[0 if number == 1 else seeds_of(number - 1) : seeds_of(number)]
        goes_on = [s.open and s.round == number - 1 for s in standings]
        chances = [s.power for s in standings]
        wanted = (
            _wanted(universe, questions, needs, goes_on, chances, new)
            if number > 1
            else [_of_seeds(one, new) for one in universe]
        )
        if not any(one.measures for one in wanted):
            break
        experiments = [_with(one, wanted) for one in experiments]
        standings = _standings(questions, experiments, outcomes, sizes, seeds, number)
        measures = [m for one in wanted for m in one.measures]
        if any(m.fingerprint not in failed and outcomes.facts(m) is None for m in measures):
            return Survey(number, tuple(wanted), tuple(experiments), questions, standings)
    return Survey(None, (), tuple(experiments), questions, standings)


def next_rounds(
    universe: Sequence[Experiment], found: Survey, sizes: Mapping[str, int], seeds: Sequence[int]
) -> Iterator[tuple[int, Sequence[Experiment]]]:
    """Number and measures of this round and of each later one, if all open questions stay open."""
    if found.number is None:
        return
    yield found.number, found.wanted
    needs = [needs_of(one, universe, sizes) for one in found.questions]
    goes_on = [one.open and one.round >= found.number - 1 for one in found.standings]
    chances = [one.power for one in found.standings]
    for number in range(found.number + 1, rounds_of(len(seeds)) + 1):
        new = seeds[seeds_of(number - 1) : seeds_of(number)]
        yield number, _wanted(universe, found.questions, needs, goes_on, chances, new)


def _wanted(
    universe: Sequence[Experiment],
    questions: Sequence[Question],
    needs: Sequence[Collection[Key]],
    goes_on: Sequence[bool],
    chances: Sequence[float],
    seeds: Sequence[int],
) -> list[Experiment]:
    """For each question that goes on, its experiment with the measures that it needs on these
    seeds: first the primary questions, then the others, each by falling chance to be decided."""
    new = {one.id: _of_seeds(one, seeds) for one in universe}
    places = [place for place, open_ in enumerate(goes_on) if open_]
    found = []
    for place in sorted(places, key=lambda n: (questions[n].family != PRIMARY, -chances[n])):
        one = new[questions[place].experiment]
        kept = tuple(m for m in one.measures if _key(m) in needs[place])
        found.append(replace(one, measures=kept))
    return found


def _with(one: Experiment, more: Sequence[Experiment]) -> Experiment:
    """The experiment, with the measures added that ``more`` holds of it."""
    parts = [part.measures for part in more if part.id == one.id]
    return replace(one, measures=(*one.measures, *(m for part in parts for m in part)))


def needs_of(
    question: Question, experiments: Sequence[Experiment], sizes: Mapping[str, int]
) -> frozenset[Key]:
    """The measures that a question needs, whatever their seed."""
    (one,) = (e for e in experiments if e.id == question.experiment)
    cells = cells_of(_of_two_seeds(one), _AnyOutcome(), question.kinds)

    def without(gone: Cell) -> Found:
        left = (replace(cell, pending=1) if cell is gone else cell for cell in cells)
        return Found(tuple(left), sizes)

    return frozenset(
        _key(measure)
        for cell in cells
        if isinstance(question.evidence(without(cell)), Missing)
        for measure in cell.measures
    )


def _key(measure: Measure) -> Key:
    return measure.setting, measure.kind, measure.role, measure.of


def _of_seeds(one: Experiment, seeds: Collection[int]) -> Experiment:
    return replace(one, measures=tuple(m for m in one.measures if m.seed in seeds))


def _of_two_seeds(one: Experiment) -> Experiment:
    """The experiment on its first two seeds, which are enough to find its cells."""
    return _of_seeds(one, sorted({measure.seed for measure in one.measures})[:2])


class _AnyOutcome(Measured):
    """Made-up outcomes, for finding out which cells there are."""

    def column(self, measured: Measure) -> Column:
        return Column(np.array(["a", "b"]), np.array([0.0, 1.0 + measured.seed]))

    def joined(self, measures: Sequence[Measure]) -> Joined:
        return crossed({measure.seed: self.column(measure) for measure in measures})
