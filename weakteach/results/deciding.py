"""What the outcomes of a study say of the claims of the publication, as rows of a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from weakteach.results.answers import more_needed, needed_after, round_said
from weakteach.results.beyond import ALL_STATEMENTS
from weakteach.results.cells import cells_of
from weakteach.results.evidence import KINDS, Found, Statement, claim_evidence
from weakteach.results.findings import ClaimRow
from weakteach.results.numbers import MINUS, PLUS_MINUS
from weakteach.results.outcomes import Outcomes
from weakteach.results.rounds import asked_of, family_of, family_size
from weakteach.statistics.decisions import Decision, Evidence, decide
from weakteach.statistics.joined import Missing
from weakteach.statistics.rounds import Standing
from weakteach.study.experiment import Experiment


def claim_rows(
    experiments: Sequence[Experiment],
    outcomes: Outcomes,
    sizes: Mapping[str, int],
    standings: Mapping[str, Standing] | None = None,
) -> list[ClaimRow]:
    """A row for every claim whose experiment is in the study, in the order of the statements. The
    primary claims are decided as one family, which has the same size in every study; the secondary
    claims that each experiment asks are another family, those without evidence included, so that
    what is to come makes nothing undecided that was decided. A claim without evidence is not
    decided, and ``needed`` gives the reason. ``sizes`` holds the numbers of parameters of models by
    their names. ``standings`` holds, for a study in rounds, the standings of the claims that it
    asks by their ids."""
    rows = _rows(experiments, outcomes, sizes, standings)
    by_id = {one.id: one for one in experiments}
    stated = [statement for statement in ALL_STATEMENTS if statement.experiment in by_id]
    return [
        replace(row, sentence=f"{row.sentence} {caveat}")
        if statement.caveat and (caveat := statement.caveat(by_id[statement.experiment], outcomes))
        else row
        for statement, row in zip(stated, rows, strict=True)
    ]


def _rows(
    experiments: Sequence[Experiment],
    outcomes: Outcomes,
    sizes: Mapping[str, int],
    standings: Mapping[str, Standing] | None,
) -> list[ClaimRow]:
    """The rows of claims, without the caveats that follow their sentences."""
    found = {one.id: Found(tuple(cells_of(one, outcomes, KINDS)), sizes) for one in experiments}
    stated = [statement for statement in ALL_STATEMENTS if statement.experiment in found]
    evidence = [claim_evidence(statement, found[statement.experiment]) for statement in stated]
    if standings is not None:
        return [
            _in_rounds(statement, standings.get(statement.claim.id, Standing()), one)
            for statement, one in zip(stated, evidence, strict=True)
        ]
    asked = Counter(family_of(statement) for statement in asked_of(experiments))
    families: dict[str, list[int]] = {}
    for place, (statement, one) in enumerate(zip(stated, evidence, strict=True)):
        if isinstance(one, Evidence):
            families.setdefault(family_of(statement), []).append(place)
    decisions: dict[int, Decision] = {}
    for name, places in families.items():
        family = [one for place in places if isinstance(one := evidence[place], Evidence)]
        decided = decide(family, family_size(name, asked[name]))
        decisions |= dict(zip(places, decided, strict=True))
    return [
        _not_measured(statement, one)
        if isinstance(one, Missing)
        else _row(statement, decisions[place], more_needed(decisions[place]))
        for place, (statement, one) in enumerate(zip(stated, evidence, strict=True))
    ]


def _in_rounds(statement: Statement, standing: Standing, evidence: Evidence | Missing) -> ClaimRow:
    if standing.decision is None:
        why = evidence if isinstance(evidence, Missing) else Missing("the first round is under way")
        return _not_measured(statement, why)
    row = _row(statement, standing.decision, needed_after(standing))
    return replace(row, confidence=standing.confidence, round=round_said(standing))


def _not_measured(statement: Statement, why: Missing) -> ClaimRow:
    return ClaimRow(
        experiment=statement.experiment,
        sentence=statement.claim.sentence,
        verdict="not decided",
        measured="not measured",
        estimate=None,
        p=None,
        needed=why.reason,
        primary=statement.primary,
    )


def _row(statement: Statement, decision: Decision, needed: str) -> ClaimRow:
    wanted = _bounds(statement, decision.margin or 0.0)
    return ClaimRow(
        experiment=statement.experiment,
        sentence=statement.claim.sentence,
        verdict=decision.verdict,
        measured=" ".join((statement.what, *wanted)),
        estimate=decision.estimate,
        p=decision.p,
        needed=needed,
        primary=statement.primary,
    )


def _bounds(statement: Statement, margin: float) -> tuple[str, ...]:
    """Words for what the difference has to be. Outcomes may give a margin that is not positive;
    then no difference lies within it on both sides, and nothing is said of it."""
    unit = (statement.unit,) if statement.unit else ()
    match statement.claim.kind:
        case "at_least":
            least = 0.0 - margin  # no negative zero
            return (f"above {least:.2g}".replace("-", MINUS), *unit)
        case "close":
            return (f"within {PLUS_MINUS}{margin:.2g}", *unit) if margin > 0 else ()
        case "greater":
            return ("above 0", *unit)
