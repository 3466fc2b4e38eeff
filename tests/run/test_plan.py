"""How long steps are planned to take: by what the records of their kind and model say."""

from dataclasses import replace
from fractions import Fraction

import pytest
from synthetic import Bed

from weakteach.artifacts.store import Store
from weakteach.run.plan import kind_of, make_plan, measured, plan_sentence, seconds_of
from weakteach.run.prices import read_prices, scale_on
from weakteach.steps.data import Pairs
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import WeakLabels
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import EMBEDDED, LAPTOP, PAPER

CORE = {"class": "Resources", "gpus": 0, "gpu_type": ""}
A100 = {"class": "Resources", "gpus": 1, "gpu_type": "A100"}


def study(preset, student="opt-45k"):
    """Arms of two seeds and two fractions."""
    half, eighth = Fraction(1, 2), Fraction(1, 8)
    choices = Choices(weak=("opt-45k",), seeds=(0, 1), fractions=(eighth, half), student=student)
    return arms_of([size_grid(make_grid(preset, preset.first, choices, resolve=False))])


def of(kind, plan):
    return [step for step in plan.missing if isinstance(step, kind)]


def test_a_step_takes_as_many_times_its_estimate_as_others_of_its_kind_and_model(tmp_path):
    plan, scale = make_plan(study(EMBEDDED), Bed(tmp_path).store, EMBEDDED.scale), EMBEDDED.scale
    short, *_, long = sorted(of(WeakLabels, plan), key=lambda step: seconds_of(step, scale))
    half, whole = seconds_of(short, scale), seconds_of(long, scale)
    assert half < whole
    estimate = measured([(short, 3 * half), (long, 3 * whole + half)], scale)
    assert estimate(long) == pytest.approx(whole * (3 + half / (half + whole)))
    (other,) = [step for step in plan.missing if type(step).__name__ == "Dpo"][:1]
    assert estimate(other) == seconds_of(other, scale) > 0
    # What has no estimate takes the mean.
    scored, again = of(GoldReward, plan)[:2]
    assert seconds_of(scored, scale) == 0
    assert measured([(scored, 2.0), (again, 6.0)], scale)(again) == 4.0
    assert measured([], scale)(scored) == 0.0


@pytest.mark.parametrize(
    ("preset", "execution", "factor"),
    [
        (EMBEDDED, CORE, 5.0),
        (EMBEDDED, A100, 1.0),  # a core takes another time
        (PAPER, A100, 5.0),
        (PAPER, {**A100, "gpu_type": "L4"}, 1.0),
        (PAPER, {**A100, "gpu_type": ""}, 1.0),
        (PAPER, None, 1.0),
    ],
)
def test_a_plan_takes_the_rate_that_its_device_was_measured_at(tmp_path, preset, execution, factor):
    bed, arms, scale = Bed(tmp_path), study(preset), preset.scale
    before = make_plan(arms, bed.store, scale)
    done, *rest = of(WeakLabels, before)
    record = {"execution": execution, "device_seconds": 5 * seconds_of(done, scale)}
    bed.put("WeakLabels", {}, {}, fingerprint=done.fingerprint, **record)
    after = make_plan(arms, bed.store, scale)
    assert of(WeakLabels, after) == rest
    for step in rest:
        assert kind_of(step) == kind_of(done)
        assert after.seconds(step) == pytest.approx(factor * before.seconds(step))
    others = [step for step in after.missing if step not in rest]
    assert all(after.seconds(step) == before.seconds(step) for step in others)
    assert after.seconds(done) == 0.0
    assert after.device_hours == pytest.approx(sum(after.estimates.values()) / 3600)


@pytest.mark.parametrize(
    ("gpu_type", "device", "speed"), [("", "A100", 1.0), ("L4", "L4", 0.39), ("T4", "A100", 1.0)]
)
def test_a_plan_for_a_type_of_gpu_takes_the_times_that_such_gpus_took(
    tmp_path, gpu_type, device, speed
):
    bed, arms = Bed(tmp_path), study(PAPER)
    scale = scale_on(gpu_type, PAPER.scale, read_prices())
    of_preset, before = (make_plan(arms, bed.store, one) for one in (PAPER.scale, scale))
    assert (before.device, of_preset.device) == (device, "A100")
    assert before.device_hours == pytest.approx(of_preset.device_hours / speed)
    done, *rest = of(WeakLabels, before)
    record = {"execution": {**A100, "gpu_type": device}, "device_seconds": 5 * before.seconds(done)}
    bed.put("WeakLabels", {}, {}, fingerprint=done.fingerprint, **record)
    after = make_plan(arms, bed.store, scale)
    for step in rest:
        assert after.seconds(step) == pytest.approx(5 * before.seconds(step))


def hours(store, data, preset=EMBEDDED):
    choices = Choices(weak=("opt-45k",), seeds=(0,), data=data, student="opt-45k", gold=("none",))
    grid = make_grid(preset, preset.first, choices, resolve=False)
    return make_plan(arms_of([size_grid(grid)]), store, preset.scale)


def teaching(plan):
    """Seconds of the labels of unlabeled pairs."""
    labels = of(WeakLabels, plan)
    return sum(plan.seconds(step) for step in labels if step.part.name == "unlabeled")


@pytest.mark.parametrize("kind", ["world", "file", "ranked file", "files"])
def test_hours_grow_with_the_pairs_that_are_given(tmp_path, kind):
    def data(count):
        if kind == "world":
            return f"world:{count}"
        rows = ['{"prompt": "p", "chosen": "a", "rejected": "b"}\n'] * count
        if kind == "ranked file":
            rows = ['{"prompt": "p", "chosen": "a", "rejected": ["b", "c"]}\n'] * (count // 2)
        cut = count // 4 if kind == "files" else 0
        parts = {"a": rows[:cut], "b": rows[cut:]} if cut else {"": rows}
        for name, part in parts.items():
            (tmp_path / f"{count}{name}.jsonl").write_text("".join(part))
        return str(tmp_path / f"{count}*.jsonl")

    store = Store(tmp_path / "store")
    few, many = hours(store, data(1536)), hours(store, data(512 + 4 * 1024))
    assert teaching(many) == pytest.approx(4 * teaching(few))
    assert many.device_hours > few.device_hours
    assert "not counted" not in plan_sentence(many)


def test_generation_takes_as_long_as_there_are_test_pairs(tmp_path):
    def generating(test_pairs):
        choices = Choices(weak=("opt-45k",), seeds=(0,), student="opt-45k", test_pairs=test_pairs)
        grid = make_grid(EMBEDDED, EMBEDDED.first, choices, resolve=False)
        plan = make_plan(arms_of([size_grid(grid)]), Store(tmp_path), EMBEDDED.scale)
        return sum(map(plan.seconds, of(Generate, plan)))

    assert generating(400) == pytest.approx(4 * generating(100))


def test_pairs_that_are_not_counted_are_told_until_a_record_counts_them(tmp_path):
    bed = Bed(tmp_path)
    before = hours(bed.store, "org/pairs", LAPTOP)
    assert "1,000 training pairs of org/pairs:train, not counted yet" in plan_sentence(before)
    (pairs,) = of(Pairs, before)
    bed.put("Pairs", {"pairs": 10_300}, {}, fingerprint=pairs.fingerprint)
    after = hours(bed.store, "org/pairs", LAPTOP)
    assert "not counted" not in plan_sentence(after)
    assert teaching(after) == pytest.approx(10 * teaching(before))


def test_another_models_records_say_nothing(tmp_path):
    bed, scale = Bed(tmp_path), EMBEDDED.scale
    plan = make_plan(study(EMBEDDED), bed.store, scale)
    done = of(WeakLabels, plan)[0]
    larger = replace(done.teacher.start.start, content="sha256:0", label="another")
    elsewhere = replace(done, teacher=replace(done.teacher, start=larger))
    estimate = measured([(elsewhere, 100.0)], scale)
    assert estimate(done) == seconds_of(done, scale)
