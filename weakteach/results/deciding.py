"""What the outcomes of a study say of the claims of the publication, as rows of a table."""

from collections.abc import Mapping, Sequence

from weakteach.results.answers import more_needed
from weakteach.results.beyond import BEYOND_STATEMENTS
from weakteach.results.cells import cells_of
from weakteach.results.claims import KINDS, STATEMENTS, Found, Statement
from weakteach.results.findings import ClaimRow
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.decisions import Decision, Evidence, decide
from weakteach.statistics.joined import Missing, aligned
from weakteach.study.experiments import Experiment


def claim_rows(
    experiments: Sequence[Experiment], outcomes: Outcomes, sizes: Mapping[str, int]
) -> list[ClaimRow]:
    """Every claim whose experiment is in the study, in the order of the
    statements. The primary
    ones are decided as one family, the secondary ones of each experiment as another. What lacks
    its evidence is not decided, for a reason that ``needed`` gives. ``sizes`` holds the parameters
    of models by their names."""
    found = {one.id: Found(tuple(cells_of(one, outcomes, KINDS)), sizes) for one in experiments}
    stated = [
        statement
        for statement in (*STATEMENTS, *BEYOND_STATEMENTS)
        if statement.experiment in found
    ]
    evidence = [_evidence(statement, found[statement.experiment]) for statement in stated]
    families: dict[str, list[int]] = {}
    for place, (statement, one) in enumerate(zip(stated, evidence, strict=True)):
        if isinstance(one, Evidence):
            families.setdefault(_family(statement), []).append(place)
    decisions: dict[int, Decision] = {}
    for places in families.values():
        family = [one for place in places if isinstance(one := evidence[place], Evidence)]
        decisions |= dict(zip(places, decide(family), strict=True))
    return [
        _not_measured(statement, one)
        if isinstance(one, Missing)
        else _row(statement, decisions[place])
        for place, (statement, one) in enumerate(zip(stated, evidence, strict=True))
    ]


def _family(statement: Statement) -> str:
    return "primary" if statement.primary else statement.experiment


def _evidence(statement: Statement, found: Found) -> Evidence | Missing:
    """The difference and, of the same seeds and prompts, the margin."""
    difference = statement.difference(found)
    margin = statement.margin(found) if statement.margin else None
    if isinstance(difference, Missing):
        return difference
    if margin is None or isinstance(margin, float):
        return Evidence(statement.claim, difference.matrix, margin)
    both = aligned([difference, margin])
    if isinstance(both, Missing):
        return both
    return Evidence(statement.claim, both[0].matrix, both[1].matrix)


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


def _row(statement: Statement, decision: Decision) -> ClaimRow:
    margin = decision.margin or 0
    wanted = {
        "at_least": f"above \N{MINUS SIGN}{margin:.2g}",
        "close": f"within ±{margin:.2g}",
        "greater": "above 0",
    }[statement.claim.kind]
    return ClaimRow(
        experiment=statement.experiment,
        sentence=statement.claim.sentence,
        verdict=decision.verdict,
        measured=f"{statement.what} {wanted} {statement.unit}".strip(),
        estimate=decision.estimate,
        p=decision.p,
        needed=more_needed(decision),
        primary=statement.primary,
    )
