"""A plan on so many devices, against schedules that can be told by hand."""

import random
from dataclasses import replace
from fractions import Fraction

import pytest
from rich.console import Console

from weakteach.artifacts.step import walk
from weakteach.models.resources import Resources
from weakteach.run.plan import seconds_of
from weakteach.run.prices import Cost, NodeType, Prices
from weakteach.run.simulation import (
    Task,
    longest_first,
    longest_paths,
    simulate,
    simulation_table,
    tasks_of,
)
from weakteach.steps.evaluation import Generate
from weakteach.steps.labels import WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.study.experiment import arms_of
from weakteach.study.experiments import size_grid
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import EMBEDDED, PAPER, Ranges

CHAIN = [Task(3), Task(4, after=(0,)), Task(5, after=(1,))]
# Graham's: the longest first takes 5 + 3 + 3 beside 4 + 4 + 3 on two machines, at best.
LIST = [Task(3), Task(3), Task(3), Task(4), Task(4), Task(5)]


@pytest.mark.parametrize(
    ("tasks", "devices", "seconds"),
    [
        ([], 8, 0),
        (CHAIN, 1, 12),
        (CHAIN, 8, 12),
        ([Task(6)] * 4, 1, 24),
        ([Task(6)] * 4, 3, 12),
        ([Task(6)] * 4, 64, 6),
        (LIST, 2, 11),
        # A step of several workers is that much shorter, and takes no more than there are.
        ([Task(12, workers=4)], 1, 12),
        ([Task(12, workers=4)], 4, 3),
        ([Task(12, workers=4)], 64, 3),
        # Both devices are needed at once: the short task goes before or after.
        ([Task(12, workers=2), Task(2)], 2, 8),
        # What takes no device waits for none.
        ([Task(5), Task(0), Task(5, after=(1,))], 2, 5),
        # The short task that begins a long path goes first.
        ([Task(4), Task(4), Task(1), Task(9, after=(2,))], 2, 10),
        # The same input twice is one input.
        ([Task(2), Task(3, after=(0, 0))], 1, 5),
    ],
)
def test_known_schedules(tasks, devices, seconds):
    assert simulate(tasks, devices) == pytest.approx(seconds)


def test_longest_paths():
    assert longest_paths(CHAIN, 1) == [12, 9, 5]
    fork = [Task(1), Task(2, after=(0,)), Task(8, workers=4, after=(0,))]
    assert longest_paths(fork, 1) == [9, 2, 8]
    assert longest_paths(fork, 4) == [3, 2, 2]


def test_no_schedule_beats_its_bounds_nor_is_twice_as_long():
    """Of tasks of one device each, by Graham's bound (2 - 1/m)."""
    draw = random.Random(5)
    for _ in range(50):
        tasks = [
            Task(draw.randint(0, 9), after=tuple(draw.sample(range(n), min(n, draw.randint(0, 2)))))
            for n in range(40)
        ]
        for devices in (1, 3, 8, 64):
            least = max(max(longest_paths(tasks, devices)), sum(t.seconds for t in tasks) / devices)
            assert least <= simulate(tasks, devices) + 1e-9
            assert simulate(tasks, devices) <= (2 - 1 / devices) * least + 1e-9


def steps_of(preset, resources):
    ranges = Ranges(preset.first.weak, (Fraction(1, 2),), (0,), preset.first.betas)
    grid = make_grid(preset, ranges, Choices(), resolve=False)
    arms = arms_of([size_grid(grid)])
    steps = walk(target for arm in arms for target in arm.targets)
    return arms, steps, tasks_of(steps, lambda step: seconds_of(step, preset.scale), resources, 512)


def test_tasks_are_the_steps_with_their_workers_and_inputs():
    resources = Resources(train_workers=4, label_actors=2, gpus=1)
    _, steps, tasks = steps_of(PAPER, resources)
    assert len(tasks) == len(steps)
    for step, task in zip(steps, tasks, strict=True):
        assert [steps[number] for number in task.after] == list(step.inputs)
        if isinstance(step, Sft | Dpo):
            assert task.workers == 4
        if isinstance(step, WeakLabels | Generate):
            assert task.workers == 2
    # Of steps that exist nothing is left, nor does anything wait for them.
    (generate,) = [step for step in steps if isinstance(step, Generate)][:1]
    assert tasks_of([generate], lambda step: 1.0, resources, 512) == [Task(1.0, 2)]


def test_the_arm_with_the_longest_path_starts_first():
    arms, steps, _ = steps_of(EMBEDDED, Resources())
    slow = next(s for s in reversed(steps) if isinstance(s, WeakLabels))
    late = [arm for arm in arms if slow.fingerprint in {s.fingerprint for s in walk(arm.targets)}]
    ordered = longest_first(arms, lambda step: 100.0 * (step.fingerprint == slow.fingerprint))
    assert ordered[: len(late)] == late
    assert sorted(ordered, key=arms.index) == arms
    assert longest_first(arms, lambda step: 0.0) == arms


def test_generation_counts_its_steps_of_decoding():
    """2,000 prompts in 32 batches of 64, of 256 tokens each, through every layer; of operations
    alone it would be some 8 times less."""
    _, steps, _ = steps_of(PAPER, Resources())
    scale = PAPER.scale
    generate = next(s for s in steps if isinstance(s, Generate))
    without = seconds_of(generate, replace(scale, decode_layer_seconds=0.0))
    assert without == pytest.approx(2 * 1.3e9 * (125 + 256) * 2000 / 1.25e14)
    rest = seconds_of(generate, scale) - without
    layers = rest / (32 * 256 * scale.decode_layer_seconds)
    assert layers == pytest.approx(round(layers))
    assert 18 <= layers <= 28  # opt-1.3b has 24
    assert 6 < rest / without < 12


def test_money_is_that_of_whole_nodes_for_the_time_of_their_device():
    node = NodeType(cloud="ours", device="L4", devices=4, on_demand=8.0, spot=2.0)
    prices = Prices(
        currency="EUR", workers="spot", speed={"A100": {"L4": 0.5}}, nodes={"small": node}
    )
    console = Console(width=100, record=True)
    cost = Cost("small", node, 0.0, 0.0, None)
    console.print(simulation_table([Task(3600 * 6)] * 8, "A100", [cost], prices))
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in console.export_text().splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["1", "48", "100%", "192.00"],  # 96 h on one node of 2.00
        ["8", "6", "100%", "48.00"],  # 12 h on two
        ["64", "6", "12%", "384.00"],  # 12 h on 16
    ]
