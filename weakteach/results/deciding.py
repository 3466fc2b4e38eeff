"""What the outcomes of a study say of the claims of the publication, as rows of a table."""

from collections.abc import Mapping, Sequence

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
    """Every claim whose experiment is in the study, decided as one family. What lacks its evidence
    is not decided, for a reason that ``needed`` gives. ``sizes`` holds the parameters of models by
    their names."""
    found = {one.id: Found(tuple(cells_of(one, outcomes, KINDS)), sizes) for one in experiments}
    stated = [statement for statement in STATEMENTS if statement.experiment in found]
    evidence = [_evidence(statement, found[statement.experiment]) for statement in stated]
    decisions = iter(decide([one for one in evidence if isinstance(one, Evidence)]))
    return [
        _not_measured(statement, one)
        if isinstance(one, Missing)
        else _row(statement, next(decisions))
        for statement, one in zip(stated, evidence, strict=True)
    ]


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
    claim = statement.claim
    return ClaimRow(
        statement.experiment, claim.sentence, "not decided", "not measured", None, None, why.reason
    )


def _row(statement: Statement, decision: Decision) -> ClaimRow:
    claim, margin = statement.claim, decision.margin
    measured = {
        "at_least": f"difference above −{margin or 0:.2g}",
        "close": f"difference within ±{margin or 0:.2g}",
        "greater": "difference above 0",
    }[claim.kind]
    return ClaimRow(
        statement.experiment,
        claim.sentence,
        decision.verdict,
        f"{measured} {statement.unit}".strip(),
        decision.estimate,
        decision.p,
        _needed(decision),
    )


def _needed(decision: Decision) -> str:
    """Why a claim is not decided, and how much more would decide it."""
    if decision.verdict != "not decided":
        return ""
    more = []
    if decision.seeds_needed:
        more.append(f"{decision.seeds_needed:,} seeds")
    if decision.prompts_needed:
        more.append(f"{decision.prompts_needed:,} test prompts")
    wanted = f"about {' or '.join(more)} would decide it" if more else ""
    return "; ".join(text for text in (decision.reason, wanted) if text)
