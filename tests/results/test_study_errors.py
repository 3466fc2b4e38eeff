"""By simulation: how often a study of the families of ``paper.py``, each of which errs in at most
5% of studies, says anything wrong at all."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from simulated import ROUNDS, after, at_boundary

from weakteach.results.beyond import ALL_STATEMENTS
from weakteach.results.evidence import Found, Statement
from weakteach.results.rounds import PRIMARY, family_size, questions_of
from weakteach.statistics.decisions import Kind
from weakteach.statistics.schedule import seeds_of
from weakteach.study.beyond import BEYOND
from weakteach.study.experiments import EXPERIMENTS
from weakteach.study.grids import Choices, make_grid
from weakteach.study.policies import sizes_of
from weakteach.study.presets import EMBEDDED

# The kind of a claim, and whether its margin is measured.
Form = tuple[Kind, bool]


def families() -> dict[str, list[Form]]:
    """The claims and comparisons that ``paper.py`` decides, by their families."""
    grid = make_grid(EMBEDDED, EMBEDDED.ranges, Choices(seeds=(10, 11)))
    experiments = [make(replace(grid, more_seeds=())) for make in (*EXPERIMENTS, *BEYOND)]
    stated = {one.claim.id: one for one in ALL_STATEMENTS}
    found: dict[str, list[Form]] = {}
    for one in questions_of(experiments, sizes_of(grid.models)):
        form = form_of(stated[one.claim]) if one.claim else ("greater", False)
        found.setdefault(one.family, []).append(form)
    return found


def form_of(statement: Statement) -> Form:
    if statement.margin is None:
        return statement.claim.kind, False
    return statement.claim.kind, not isinstance(statement.margin(Found((), {})), float)


def test_the_families_of_the_paper_are_the_primary_one_and_one_of_each_experiment() -> None:
    found = families()
    assert len(found[PRIMARY]) == family_size(PRIMARY, 1) == 4
    claims = sum(map(len, found.values()))
    print(f"\n{len(found)} families of {claims} claims: {Counter(map(len, found.values()))}")
    assert claims >= len(ALL_STATEMENTS)
    assert len(found) > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_families_of_five_percent_each_make_a_study_that_errs_in_more() -> None:
    """All claims of all families on their boundary: no study could have more to get wrong."""
    studies, rng, found = 1000, np.random.default_rng(0), families()
    wrong, of_family = Counter[int](), Counter[str]()
    for _ in range(studies):
        common = rng.normal(size=seeds_of(ROUNDS))
        erring = 0
        for family, forms in found.items():
            standings = after([at_boundary(rng, common, *form) for form in forms], ROUNDS)
            if any(one.decided for one in standings):
                of_family[family] += 1
                erring += 1
        wrong[erring] += 1
    some = studies - wrong[0]
    print(f"\n{some} of {studies} studies ({some / studies:.1%}) say anything wrong;")
    print(f"studies by the number of families that do: {dict(sorted(wrong.items()))}")
    rates = {family: of_family[family] / studies for family in found}
    print(f"share of studies in which a family does: {rates}")
    # Far above what each family is held to, and far below the sum of those.
    assert max(rates.values()) <= 0.05
    assert 0.05 < some / studies < 0.5
