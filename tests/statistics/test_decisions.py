"""Claims: the rules of their verdicts, and the n that would decide them."""

import numpy as np
import pytest

from weakteach.statistics import crossed
from weakteach.statistics.decisions import (
    CONTRADICTED,
    NOT_DECIDED,
    SUPPORTED,
    Claim,
    Decision,
    Evidence,
    Kind,
    decide,
    power,
)

TRIES = 1000


def matrix(
    mean: float, sd: float, seeds: int = 4, prompts: int = 60, random: int = 0
) -> np.ndarray:
    """Noise [seeds, prompts] shifted to exactly this mean."""
    cells = sd * np.random.default_rng(random).normal(size=(seeds, prompts))
    return cells - cells.mean() + mean


def verdict(kind: Kind, difference: np.ndarray, margin: float | np.ndarray | None) -> Decision:
    return decide([Evidence(Claim("C1", "A sentence.", kind), difference, margin)])[0]


@pytest.mark.parametrize(
    ("kind", "mean", "sd", "margin", "expected"),
    [
        ("greater", 0.5, 0.5, None, SUPPORTED),
        ("greater", -0.5, 0.5, None, CONTRADICTED),
        ("greater", 0.1, 5.0, None, NOT_DECIDED),
        ("at_least", 0.0, 0.5, 0.3, SUPPORTED),
        ("at_least", 0.9, 0.5, 0.3, SUPPORTED),
        ("at_least", -0.9, 0.5, 0.3, CONTRADICTED),
        ("at_least", -0.3, 0.5, 0.3, NOT_DECIDED),
        ("at_least", 0.0, 5.0, 0.3, NOT_DECIDED),
        ("close", 0.0, 0.5, 0.3, SUPPORTED),
        ("close", 0.9, 0.5, 0.3, CONTRADICTED),
        ("close", -0.9, 0.5, 0.3, CONTRADICTED),
        ("close", 0.25, 1.5, 0.3, NOT_DECIDED),
        ("close", 0.35, 1.5, 0.3, NOT_DECIDED),
    ],
)
def test_verdict_is_where_the_interval_lies(
    kind: Kind, mean: float, sd: float, margin: float | None, expected: str
) -> None:
    decision = verdict(kind, matrix(mean, sd), margin)
    assert decision.verdict == expected
    assert decision.margin == margin
    assert decision.estimate == crossed.mean(matrix(mean, sd))
    low, high = decision.estimate.low, decision.estimate.high
    bound = margin or 0.0
    ends = {"greater": (0.0, np.inf), "at_least": (-bound, np.inf), "close": (-bound, bound)}[kind]
    inside, outside = ends[0] < low and high < ends[1], high < ends[0] or ends[1] < low
    assert (decision.verdict == SUPPORTED, decision.verdict == CONTRADICTED) == (inside, outside)
    assert (decision.p < 0.05) == (inside or outside)
    assert bool(decision.reason) == (expected == NOT_DECIDED)


def test_margin_is_a_share_of_a_gain_that_must_be_shown() -> None:
    weak, human, base = matrix(2.0, 0.5), matrix(2.0, 0.5, random=1), matrix(0.0, 0.5, random=2)
    fixed = verdict("at_least", weak - human, 0.2)
    decision = verdict("at_least", weak - human, 0.1 * (human - base))
    assert decision.verdict == SUPPORTED
    assert decision.margin == pytest.approx(0.2)
    assert decision.p_alone == pytest.approx(crossed.mean((weak - human) + 0.1 * (human - base)).p)
    assert decision.p_alone != fixed.p_alone

    vague = verdict("at_least", weak - human, 0.1 * matrix(0.1, 5.0))
    assert (vague.verdict, vague.p) == (NOT_DECIDED, 1)
    assert "gain" in vague.reason
    assert vague.seeds_needed is None
    worse = verdict("close", weak - human, 0.1 * matrix(-2.0, 0.5))
    assert "gain" in worse.reason


def test_at_the_boundary_a_noisy_margin_is_tested_at_its_level() -> None:
    random, claim, family = np.random.default_rng(9), Claim("C1", "A sentence.", "at_least"), []
    for _ in range(400):
        # The weak students lose just a tenth of the gain.
        weak, human, base = (
            level + 0.05 * random.normal(size=(5, 1)) + 0.5 * random.normal(size=(5, 60))
            for level in (0.9, 1.0, 0.0)
        )
        family.append(Evidence(claim, weak - human, 0.1 * (human - base)))
    decisions = decide(family)
    assert 0.02 < np.mean([one.p_alone < 0.05 for one in decisions]) < 0.08
    assert {one.verdict for one in decisions} == {NOT_DECIDED}


def test_one_seed_decides_nothing() -> None:
    decision = verdict("greater", matrix(5.0, 0.5, seeds=1), None)
    assert (decision.verdict, decision.p, decision.seeds_needed) == (NOT_DECIDED, 1, None)
    assert "one seed" in decision.reason
    assert decision.estimate.low > 0


def test_a_family_has_to_share_its_five_percent() -> None:
    cells = matrix(0.0, 1.0)
    slight = cells + 1.1 * crossed.mean(cells).high
    just = verdict("greater", slight, None)
    assert just.verdict == SUPPORTED
    assert 0.01 < just.p_alone < 0.05
    claim = Claim("C1", "A sentence.", "greater")
    clear, vague = matrix(2.0, 0.5, random=1), matrix(0.0, 0.5, random=2)
    family = decide([Evidence(claim, one, None) for one in (slight, vague, vague, clear)])
    assert [one.verdict for one in family] == [NOT_DECIDED, NOT_DECIDED, NOT_DECIDED, SUPPORTED]
    assert [one.p for one in family] == pytest.approx(
        list(crossed.holm([one.p_alone for one in family]))
    )
    assert "family" in family[0].reason
    alone = verdict("greater", vague + 0.05, None)
    among = decide([Evidence(claim, vague + 0.05), *[Evidence(claim, clear)] * 5])[0]
    assert alone.seeds_needed is not None
    assert among.seeds_needed is not None
    assert among.seeds_needed > alone.seeds_needed
    assert decide([]) == ()


@pytest.mark.parametrize(
    ("kind", "margin", "match"),
    [
        ("at_least", None, "no margin"),
        ("close", None, "no margin"),
        ("greater", 0.1, "a margin"),
        ("at_least", 0.0, "not above 0"),
        ("close", float("nan"), "not above 0"),
        ("close", np.ones((4, 59)), "Not paired"),
    ],
)
def test_margins_that_make_no_sense_are_refused(
    kind: Kind, margin: float | np.ndarray | None, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        verdict(kind, matrix(0.0, 1.0), margin)


@pytest.mark.parametrize(
    ("seeds", "prompts", "seed_sd", "prompt_sd", "effect"),
    [
        (3, 100, 0.1, 0.5, 0.4),
        (3, 100, 0.0, 1.0, 0.4),
        (8, 50, 0.3, 0.5, 0.4),
        (20, 20, 0.1, 1.0, 0.7),
        (2, 100, 0.05, 0.0, 1.0),
    ],
)
def test_power_is_the_rate_of_finding_the_effect(
    seeds: int, prompts: int, seed_sd: float, prompt_sd: float, effect: float
) -> None:
    random, found = np.random.default_rng(10), 0
    for _ in range(TRIES):
        cells = effect + seed_sd * random.normal(size=(seeds, 1))
        cells = cells + prompt_sd * random.normal(size=(1, prompts))
        found += crossed.mean(cells + random.normal(size=(seeds, prompts))).low > 0
    truth = crossed.Components(effect, seeds, prompts, seed_sd**2, prompt_sd**2, 1.0, 0, 0)
    predicted = power(truth, seeds, prompts)
    assert 0.2 < predicted < 0.99
    assert found / TRIES == pytest.approx(predicted, abs=0.04)


def test_the_needed_n_has_the_power_and_one_less_has_not() -> None:
    random = np.random.default_rng(11)
    cells = 0.2 * random.normal(size=(3, 1)) + random.normal(size=(3, 80))
    cells = cells - cells.mean() + 0.15
    decision = verdict("greater", cells, None)
    assert decision.verdict == NOT_DECIDED
    needed, parts = decision.seeds_needed, crossed.components(cells)
    assert needed is not None
    assert power(parts, needed, 80) >= 0.8 > power(parts, needed - 1, 80)
    # Seeds that differ this much cannot be outweighed by prompts.
    assert decision.prompts_needed is None


def test_prompts_that_differ_too_much_cannot_be_outweighed_by_seeds() -> None:
    random = np.random.default_rng(12)
    cells = 3 * random.normal(size=(1, 20)) + 0.1 * random.normal(size=(4, 20))
    decision = verdict("at_least", cells - cells.mean(), 0.2)
    assert decision.verdict == NOT_DECIDED
    assert decision.seeds_needed is None
    assert decision.prompts_needed is not None
    parts = crossed.components(cells - cells.mean() + 0.2)
    assert power(parts, 4, decision.prompts_needed) >= 0.8


def test_close_needs_power_at_both_ends() -> None:
    cells = matrix(0.0, 2.0, seeds=4, prompts=40)
    close, at_least = verdict("close", cells, 0.3), verdict("at_least", cells, 0.3)
    assert close.verdict == at_least.verdict == NOT_DECIDED
    assert close.seeds_needed is not None
    assert at_least.seeds_needed is not None
    assert close.seeds_needed > at_least.seeds_needed


def test_power_of_one_seed_is_refused_and_of_certainty_is_1() -> None:
    with pytest.raises(ValueError, match="2 seeds"):
        power(crossed.components(matrix(1.0, 1.0, seeds=1)), 3, 50)
    assert power(crossed.components(np.full((3, 5), 0.5)), 2, 2) == 1
