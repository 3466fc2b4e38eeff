"""The facts of teachers whose accuracy, calibration and habits are known."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from judged_teachers import facts, judged
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from weakteach.evaluation.judged import Judged, pairs_table
from weakteach.evaluation.teaching import (
    Slice,
    facts_from_json,
    seen_facts,
    seen_from_json,
    to_json,
)
from weakteach.labeling.derived import top_margin
from weakteach.statistics.calibration import (
    cross_fitted_probability,
    error_parts,
    label_probability,
)
from weakteach.statistics.cross_fit import kappa
from weakteach.statistics.estimate import Estimate


def test_facts_of_a_known_teacher() -> None:
    teacher = judged()
    found = facts(teacher)
    accuracy = teacher.right.mean()
    assert found.accuracy.value == pytest.approx(accuracy)
    assert found.accuracy.low < 0.7 < found.accuracy.high
    assert found.accuracy.prompts == found.pairs == found.groups == 2000
    # It boasts, and one number sets it right.
    assert found.temperature > 3
    assert found.before.ece > 0.15 > 0.05 > found.after.ece
    assert found.ece_gain.low > 0.05
    assert found.ece_gain.value == pytest.approx(found.before.ece - found.after.ece)
    assert found.brier_gain.low > 0
    assert found.brier_gain.value == pytest.approx(found.before.brier - found.after.brier)
    assert sum(found.margins.right) + sum(found.margins.wrong) == 2 * 2000
    # Larger margins are more often right.
    deciles = [one.accuracy.value for one in found.deciles]
    assert len(deciles) == 10
    assert deciles[0] < 0.56 < 0.85 < deciles[-1]
    assert np.mean(deciles) == pytest.approx(accuracy)
    assert [one.name for one in found.sources] == ["a", "b"]
    assert found.length is not None
    assert found.length.human.value == 1
    assert found.length.human.prompts == 1500
    assert found.length.teacher.value == pytest.approx(0.7, abs=0.03)
    assert found.curve is None


def test_the_confident_part_and_routing() -> None:
    teacher = judged()
    found = facts(teacher)
    assert [one.share for one in found.confident] == [n / 10 for n in range(1, 11)]
    top = found.confident[0]
    assert top.accuracy.value == found.deciles[-1].accuracy.value
    assert top.sure < top.accuracy.low
    assert found.confident[-1].accuracy == found.accuracy
    routes = {one.human_share: one for one in found.routing}
    assert routes[0].accuracy.value == found.accuracy.value == routes[0].at_random
    assert routes[1].accuracy.value == 1 == routes[1].at_random
    # Humans on the half with the small margins: the teacher errs on the others alone.
    assert routes[0.5].accuracy.value == pytest.approx(
        (1 + found.confident[4].accuracy.value) / 2, abs=1e-9
    )
    assert routes[0.5].accuracy.value > routes[0.5].at_random + 0.05


def test_equal_margins_are_ranked_by_pair_id_so_that_a_share_is_that_share() -> None:
    """Of 40 pairs 20 have the margin 0, where the teacher is right on the 10 with smaller ids."""
    teacher = judged(40, repeats=1)
    order = np.random.default_rng(1).permutation(40)  # rows are in no order
    human = np.where(np.arange(40) < 10, 2, 1)  # a tie is the second response
    margin = np.where(np.arange(40) < 20, 0.0, 1.0)
    teacher = replace(
        teacher, pair_id=teacher.pair_id[order], human=human[order], margin=margin[order][None]
    )
    found = facts(teacher)
    assert found.accuracy.value == 0.75
    for route in found.routing:
        # Humans first get the wrong labels, which have the larger ids of the equal margins.
        assert route.accuracy.value == pytest.approx(min(1.0, 0.75 + route.human_share))
        assert route.at_random == pytest.approx(0.75 + 0.25 * route.human_share)
    assert [one.accuracy.prompts for one in found.confident] == [4 * n for n in range(1, 11)]
    assert found.confident[6].accuracy.value == 1
    assert [one.accuracy.prompts for one in found.deciles] == [4] * 10
    for share in (Fraction(3, 5), Fraction(3, 4)):
        labels = pa.table({"pair_id": teacher.pair_id.tolist(), "margin": teacher.margin[0]})
        kept = set(top_margin(labels, share)["pair_id"].to_pylist())
        assert kept == set(teacher.pair_id[teacher.rank[0] >= 1 - float(share)])


def test_sixty_pairs_say_less_than_six_thousand_and_repeats_say_more_than_one_round() -> None:
    widths = []
    for pairs, repeats in ((60, 1), (60, 5), (6000, 1)):
        accuracy = facts(judged(pairs, repeats=repeats)).accuracy
        widths.append(accuracy.high - accuracy.low)
    assert widths[0] > widths[1] > widths[2]


def test_rivals_are_compared_on_the_same_pairs() -> None:
    teacher = judged()
    worse = replace(teacher, margin=judged(accuracy=0.5, seed=1).margin)
    found = facts(teacher, rivals=[("opt-45k, seed 1", True, teacher), ("opt-1m", False, worse)])
    twin, rival = found.rivals
    assert (twin.agreement.value, twin.kappa.value, twin.behind.value) == (1, 1, 0)
    assert twin.same_model
    assert rival.kappa.low < 0 < rival.kappa.high
    # Of both rounds, as the agreement is, and as wide as teachers that share training pairs allow.
    assert rival.kappa == kappa(teacher.choice, worse.choice, teacher.group, teacher.inflation)
    alone = kappa(teacher.choice[0], worse.choice[0])
    assert rival.kappa.value != alone.value
    assert rival.kappa.high - rival.kappa.low > 1.2 * (alone.high - alone.low)
    assert rival.behind.low > 0.1
    assert rival.behind.value == pytest.approx(found.accuracy.value - rival.accuracy.value)
    assert abs(rival.kappa.value) < 0.1


def test_the_curve_is_of_the_same_pairs() -> None:
    smaller = {60: judged(accuracy=0.55, seed=0), 120: judged(accuracy=0.64, seed=0)}
    found = facts(judged(), smaller=smaller).curve
    assert found is not None
    assert found.labels == (60, 120, 240)
    assert found.gain.low > 0
    assert found.reach.labels is not None
    assert found.reach.labels > 240


@pytest.mark.parametrize(("folds", "repeats"), [(5, 1), (10, 3), (2, 2)])
def test_calibration_and_what_scaling_gains_are_as_uncertain_as_teachers_that_share_pairs(
    folds: int, repeats: int
) -> None:
    """Rounds that are all alike say no more than one of them: of p(1 - p)/n, as the accuracy."""
    teacher = judged(400, repeats=1, folds=folds)
    rounds = {
        name: np.repeat(getattr(teacher, name), repeats, axis=0) for name in ("margin", "fold")
    }
    teacher = replace(teacher, **rounds)
    widened = 1 / repeats + folds / (folds - 1)
    found = facts(teacher)
    for one in (*found.before.bins, *found.after.bins):
        assert one.count == 40 * repeats
        low, high = proportion_confint(
            40 / widened * one.accuracy.value, 40 / widened, method="wilson"
        )
        assert (one.accuracy.low, one.accuracy.high) == pytest.approx((low, high), abs=1e-9)
    margin, right = teacher.margin[0], teacher.right[0]
    claimed = label_probability(margin, 1.0)
    fitted = cross_fitted_probability(margin, right, teacher.fold[0])
    brier = np.square(claimed - right) - np.square(fitted - right)
    ece = error_parts(claimed, right) - error_parts(fitted, right)
    for gain, values in ((found.brier_gain, brier), (found.ece_gain, ece)):
        half = stats.t.ppf(0.975, 399) * values.std(ddof=1) * np.sqrt(widened / 400)
        assert gain.value == pytest.approx(values.mean())
        assert (gain.low, gain.high) == pytest.approx((gain.value - half, gain.value + half))


def of_prompts(sizes: list[int], right_of: list[float], seed: int = 0) -> Judged:
    """A teacher judged on prompts of so many pairs, of which about these shares are right."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    teacher = judged(2 * -(-len(group) // 2), repeats=1)
    random = np.random.default_rng(seed)
    right = random.random(len(group)) < np.array(right_of)[group]
    kept = {
        field: getattr(teacher, field)[: len(group)]
        for field in ("pair_id", "source", "human", "longer")
    }
    sign = np.where(right == (kept["human"] == 1), 1, -1)
    margin = (sign * np.abs(random.normal(0, 1, len(group))))[None]
    return replace(teacher, **kept, group=group, margin=margin, fold=(group % 5)[None])


def test_the_curve_counts_pairs_as_the_accuracy_does() -> None:
    """100 prompts have one pair, 20 have 15: the teacher is better on the pairs of the latter."""
    sizes = [1] * 100 + [15] * 20
    large = of_prompts(sizes, [0.5] * 100 + [0.8] * 20)
    small = of_prompts(sizes, [0.5] * 100 + [0.6] * 20)
    found = facts(large, training_pairs=320, smaller={80: small}, wanted=0.75)
    assert found.curve is not None
    first, last = found.curve.accuracy
    assert last.value == pytest.approx(found.accuracy.value)
    assert (first.value, last.value) == pytest.approx((small.right.mean(), large.right.mean()))
    # Two points make the curve exact: top - gain/√80 and top - gain/√320 = top - gain/2√80.
    gain = 2 * (last.value - first.value) * np.sqrt(80)
    assert found.curve.gain.value == pytest.approx(gain)
    wanted = 0.75
    assert found.curve.reach.labels == pytest.approx((gain / (found.curve.top - wanted)) ** 2)
    # As wide as the prompts allow, each of which counts by its pairs.
    half = (last.high - last.low) / 2
    sums = np.bincount(large.group, large.right[0] - last.value)
    error = np.sqrt(np.square(sums).sum() * 120 / 119 * large.inflation) / 400
    assert half == pytest.approx(1.96 * error, rel=0.05)


def test_what_was_seen_is_in_no_accuracy() -> None:
    how = np.array(["same pair", "", "", "near-duplicate", "same prompt", ""], dtype=object)
    right = np.array([True, True, False, True, True, True])
    known = np.array([True, True, True, True, True, False])
    found = seen_facts(how, right, known, np.arange(6))
    assert (found.pairs, found.same_pair, found.same_prompt, found.near_duplicate) == (6, 1, 1, 1)
    assert found.agreement is not None
    assert (found.agreement.value, found.agreement.prompts) == (0.5, 2)
    assert seen_facts(how, right, np.zeros(6, dtype=bool), np.arange(6)).agreement is None


def test_pairs_of_one_prompt_that_go_together_say_no_more_than_one_of_them() -> None:
    """Of 8 prompts with 5 pairs each, all pairs of 6 are right: as much as 6 of 8 pairs say."""
    how, known = np.array([""] * 40, dtype=object), np.ones(40, dtype=bool)
    right, prompts = np.repeat([True] * 6 + [False] * 2, 5), np.repeat(np.arange(8), 5)
    agreement = seen_facts(how, right, known, prompts).agreement
    assert agreement is not None
    assert (agreement.low, agreement.high) == pytest.approx(
        proportion_confint(6, 8, method="wilson"), abs=1e-9
    )
    assert (agreement.value, agreement.prompts) == (0.75, 40)
    alone = seen_facts(how, right, known, np.arange(40)).agreement
    assert alone is not None
    assert alone.low > agreement.low


def test_json_holds_every_fact_and_nothing_that_json_cannot() -> None:
    teacher = judged(300)
    elsewhere = Slice("helpful", Estimate(0.6, 0.5, 0.7, prompts=90))
    found = facts(
        teacher,
        smaller={60: judged(300, 0.6), 120: judged(300, 0.6, seed=5)},
        rivals=[("opt-45k, seed 1", True, teacher)],
        transfer=[elsewhere],
    )
    text = json.dumps(to_json(found), allow_nan=False)
    read = facts_from_json(text)
    assert to_json(read) == json.loads(text)
    assert read.accuracy.value == found.accuracy.value
    assert np.isnan(read.accuracy.p)
    assert read.transfer[0].accuracy.high == 0.7
    one = np.array([True])
    seen = seen_facts(np.array([""], dtype=object), one, one, np.array([0]))
    again = seen_from_json(json.loads(json.dumps(to_json(seen), allow_nan=False)))
    assert to_json(again) == to_json(seen)
    assert (again.pairs, again.agreement.value) == (1, 1.0)


def test_what_is_not_known_of_a_rival_is_not_known_after_it_was_stored() -> None:
    """κ of two teachers that always choose the first response."""
    teacher = judged(60)
    first = replace(teacher, margin=np.ones_like(teacher.margin))
    found = facts(first, rivals=[("opt-1m", False, first)])
    read = facts_from_json(json.dumps(to_json(found), allow_nan=False))
    (rival,) = read.rivals
    assert (rival.agreement.value, rival.kappa.prompts) == (1, 60)
    assert np.isnan([rival.kappa.value, rival.kappa.low, rival.kappa.high]).all()


def test_a_row_for_each_pair() -> None:
    teacher = judged(10)
    table = pairs_table(teacher, 4.0).to_pylist()
    assert [row["pair_id"] for row in table] == teacher.pair_id.tolist()
    for row, right in zip(table, teacher.right.T, strict=True):
        assert row["right"] == right.mean()
        if right.all():
            assert (row["probability"] > 0.5) == (row["human"] == 1)
