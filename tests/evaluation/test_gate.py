"""The gate's four answers, and where one ends and the next begins."""

from dataclasses import replace
from math import ceil, inf

import numpy as np
import pytest
from judged_teachers import facts, judged

from weakteach.evaluation.gate import FEWEST_PAIRS, MOST_TIMES, gate, pairs_to_tell, priced
from weakteach.evaluation.teaching import Confident, Rival, Route, TeacherFacts
from weakteach.statistics.cross_fit import inflation
from weakteach.statistics.estimate import Estimate
from weakteach.statistics.learning_curve import LearningCurve, Reach


def known(
    value: float, low: float, high: float, confident: tuple[Confident, ...] = (), **changes
) -> TeacherFacts:
    """Facts with such an accuracy of 300 pairs, and nothing else that says anything."""
    accuracy = Estimate(value, low, high, prompts=300)
    given = {"accuracy": accuracy, "confident": confident, "rivals": (), "pairs": 300}
    return replace(BASE, **{**given, **changes})


BASE = facts(judged(300))
SURE = Confident(0.3, Estimate(0.7, 0.6, 0.78, prompts=90), 0.56)


def rival(value: float, low: float, name: str = "opt-1m", same_model: bool = False) -> Rival:
    accuracy = Estimate(value, low, 2 * value - low, prompts=300)
    nothing = Estimate(0, 0, 0)
    return Rival(name, same_model, accuracy, nothing, nothing, nothing)


def test_a_teacher_told_from_chance_is_used() -> None:
    advice = gate(known(0.63, 0.56, 0.69), 1200)
    assert (advice.kind, advice.told, advice.labels, advice.accuracy) == ("use", True, 1200, 0.63)
    assert "63.0% (95% interval 56.0% to 69.0%) on 300 held-out pairs" in advice.sentence
    assert "about 63% of the 1,200" in advice.sentence


@pytest.mark.parametrize(("low", "told"), [(0.5, False), (0.5001, True), (0.4999, False)])
def test_an_interval_that_touches_the_threshold_does_not_tell(low: float, told: bool) -> None:
    assert gate(known(0.56, low, 0.62), 100).told is told


def test_the_threshold_is_an_argument() -> None:
    teacher = known(0.63, 0.56, 0.69)
    assert gate(teacher, 100, threshold=0.55).kind == "use"
    advice = gate(teacher, 100, threshold=0.6)
    assert not advice.told
    assert "not told from 60%" in advice.sentence
    with pytest.raises(ValueError, match="threshold is 1"):
        gate(teacher, 100, threshold=1)


def test_the_largest_confident_part_that_is_told_from_chance() -> None:
    parts = (
        Confident(0.1, Estimate(0.8, 0.65, 0.9, prompts=30), 0.6),
        SURE,
        Confident(0.5, Estimate(0.6, 0.52, 0.68, prompts=150), 0.49),  # not for all together
        Confident(1.0, Estimate(0.53, 0.47, 0.59, prompts=300), 0.46),
    )
    advice = gate(known(0.53, 0.47, 0.59, parts), 1200)
    assert (advice.kind, advice.told, advice.share, advice.labels) == ("confident", False, 0.3, 360)
    assert "360 labels (30%)" in advice.sentence
    assert "about 70% agree" in advice.sentence
    few = Confident(0.1, Estimate(1.0, 0.6, 1.0, prompts=19), 0.55)
    assert gate(known(0.53, 0.47, 0.59, (few,)), 1200).kind != "confident"


def test_labels_to_collect() -> None:
    widened = inflation(BASE.folds, BASE.repeats)
    advice = gate(known(0.56, 0.49, 0.62), 1200)
    assert advice.kind == "collect"
    assert advice.more == -(-pairs_to_tell(0.56, 0.5, widened) // 1) - 300
    seems = "so many more would tell it if its accuracy is what it seems."
    assert advice.sentence.endswith(
        f": opt-45k is not told from chance: 56.0% (95% interval 49.0% to 62.0%) on 300 held-out "
        f"pairs, and {seems}"
    )
    # A curve that is shown to rise to what is wanted needs fewer.
    gain = Estimate(2, 1, 3)
    rising = LearningCurve((100, 300), (gain, gain), 0.7, gain, Reach(0.65, 900, 500, 2000, True))
    advice = gate(known(0.54, 0.48, 0.6, curve=rising), 1200)
    assert advice.more == 600
    assert advice.sentence.startswith("Collect about 600 more human labels: ")
    assert advice.sentence.endswith(
        "and by its learning curve so many more would raise its accuracy to 65%, which would be "
        "told."
    )
    # One that is told sooner as it is need not rise.
    far = replace(rising, reach=Reach(0.65, 2000, 500, 2900, True))
    advice = gate(known(0.56, 0.49, 0.62, curve=far), 1200)
    assert advice.more == -(-pairs_to_tell(0.56, 0.5, widened) // 1) - 300
    assert advice.sentence.endswith(seems)
    untold = replace(rising, reach=Reach(0.65, 900, None, None, False))
    assert gate(known(0.51, 0.45, 0.57, curve=untold), 1200).kind == "other"


def of_prompts(pairs_of_each: int, right: list[int]) -> TeacherFacts:
    """A teacher judged on prompts of so many pairs, of which it has so many right of each."""
    group = np.repeat(np.arange(len(right)), pairs_of_each)
    teacher = judged(len(group), folds=5, repeats=1)
    hit = np.concatenate([np.arange(pairs_of_each) < count for count in right])
    margin = np.where(hit == (teacher.human == 1), 1.0, -1.0)[None]
    found = facts(replace(teacher, group=group, margin=margin, fold=(group % 5)[None]))
    return replace(found, confident=())  # of margins that are all equal


def test_pairs_of_one_prompt_to_collect_count_as_the_measured_ones_do() -> None:
    """The pairs of a prompt are all right or all wrong, so that ten say as much as one."""
    many = of_prompts(10, [10] * 57 + [0] * 43)
    one = of_prompts(1, [1] * 57 + [0] * 43)
    assert (many.accuracy.low, many.accuracy.high) == (one.accuracy.low, one.accuracy.high)
    prompts = pairs_to_tell(0.57, 0.5, inflation(5, 1))
    assert gate(one, 5000).more == ceil(prompts) - 100
    assert gate(many, 5000).more == ceil(10 * prompts) - 1000


def test_never_is_it_a_handful_of_labels_that_are_missing() -> None:
    gain = Estimate(2, 1, 3)
    there = LearningCurve((100, 300), (gain, gain), 0.7, gain, Reach(0.65, 290, 200, 400, True))
    advice = gate(known(0.54, 0.48, 0.6, curve=there), 1200)
    assert (advice.kind, advice.more) == ("collect", FEWEST_PAIRS)
    assert advice.sentence.startswith("Collect about 20 more human labels: ")


def test_more_labels_than_ten_times_those_at_hand_are_no_plan() -> None:
    widened = inflation(BASE.folds, BASE.repeats)
    found = {}
    for accuracy in (0.531, 0.533, 0.535, 0.54):
        needed = pairs_to_tell(accuracy, 0.5, widened)
        kind = gate(known(accuracy, 0.45, 0.6), 100).kind
        assert kind == ("collect" if needed <= MOST_TIMES * 300 else "other")
        found[kind] = accuracy
    assert set(found) == {"collect", "other"}


def test_another_teacher_that_is_told_from_chance_goes_first() -> None:
    rivals = (rival(0.6, 0.54), rival(0.66, 0.6, "smollm2-135m"), rival(0.9, 0.8, "x", True))
    advice = gate(known(0.53, 0.47, 0.59, (SURE,), rivals=rivals), 1200)
    assert (advice.kind, advice.instead, advice.told) == ("other", "smollm2-135m", False)
    assert "smollm2-135m reached 66.0%" in advice.sentence
    assert "Try smollm2-135m." in advice.sentence


def test_a_teacher_that_is_no_good() -> None:
    advice = gate(known(0.5, 0.44, 0.56), 1200)
    assert (advice.kind, advice.instead) == ("other", None)
    assert "larger model" in advice.sentence
    assert gate(known(0.5, 0.44, 0.56), 1200, larger=("opt-1m",)).instead == "opt-1m"
    near = known(0.5, 0.44, 0.56, rivals=(rival(0.52, 0.46, "opt-230k"),))
    assert gate(near, 1200, larger=("opt-1m",)).instead == "opt-230k"
    worse = known(0.5, 0.44, 0.56, rivals=(rival(0.48, 0.42, "opt-230k"),))
    assert gate(worse, 1200, larger=("opt-1m",)).instead == "opt-1m"


def test_pairs_that_tell_a_known_accuracy() -> None:
    # One-sample test of a share: (1.96·0.5 + 0.8416·√0.24)²/0.1² = 193.8.
    assert pairs_to_tell(0.6, 0.5) == pytest.approx(193.8, abs=0.1)
    assert pairs_to_tell(0.6, 0.5, 2.0) == pytest.approx(2 * 193.8, abs=0.2)
    assert pairs_to_tell(0.5, 0.5) == inf


def test_routes_have_prices() -> None:
    routes = (Route(0.0, Estimate(0.6, 0.5, 0.7), 0.6), Route(0.3, Estimate(0.8, 0.7, 0.9), 0.72))
    teacher, mixed = priced(routes, 1000, 0.5)
    assert (teacher.human_labels, teacher.cost) == (0, 0)
    assert (mixed.human_labels, mixed.cost, mixed.accuracy, mixed.at_random) == (
        300, 150, 0.8, 0.72,
    )  # fmt: skip
    with pytest.raises(ValueError, match="No price"):
        priced(routes, 1000, -1)
