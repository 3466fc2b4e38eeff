"""Simulates a plan on a number of devices: which step runs when, and how long it all takes."""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from rich.table import Table

from weakteach.artifacts.step import Step, walk
from weakteach.models.memory import Shape
from weakteach.models.resources import Resources
from weakteach.models.size import shape_for
from weakteach.models.spec import Model
from weakteach.run.plan import hours_text
from weakteach.run.prices import Cost, Prices
from weakteach.steps.evaluation import Generate, GoldReward, Similarity
from weakteach.steps.labels import GoldLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft, base_model, spread
from weakteach.study.measures import Arm

DEVICES = (1, 8, 64)


@dataclass(frozen=True)
class Task:
    """Work that takes ``seconds`` on one device and can be shared evenly by up to ``workers``
    devices. It can start once the tasks whose numbers are in ``after`` are done."""

    seconds: float
    workers: int = 1
    after: tuple[int, ...] = ()


def longest_paths(tasks: Sequence[Task], devices: int) -> list[float]:
    """For each task, the seconds from its start to the end of the last task that depends on it, if
    no task had to wait for devices. A task must come after those that it depends on."""
    paths = [0.0] * len(tasks)
    for number in reversed(range(len(tasks))):
        paths[number] += _duration(tasks[number], devices)
        for before in tasks[number].after:
            paths[before] = max(paths[before], paths[number])
    return paths


def simulate(tasks: Sequence[Task], devices: int) -> float:
    """Seconds until all tasks are done on so many devices, by list scheduling (Graham 1969): of the
    tasks whose inputs are done, the one with the longest path comes first, and each starts as soon
    as there are devices for all of its workers."""
    paths = longest_paths(tasks, devices)
    open_inputs = [len(set(task.after)) for task in tasks]
    followers: list[list[int]] = [[] for _ in tasks]
    for number, task in enumerate(tasks):
        for before in set(task.after):
            followers[before].append(number)
    ready = [(-paths[number], number) for number, count in enumerate(open_inputs) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, free = 0.0, devices
    while ready or running:
        waiting = []
        while ready:
            path, number = heapq.heappop(ready)
            workers = _workers(tasks[number], devices)
            if workers > free:
                waiting.append((path, number))
                continue
            free -= workers
            heapq.heappush(running, (now + _duration(tasks[number], devices), number))
        for item in waiting:
            heapq.heappush(ready, item)
        now, number = heapq.heappop(running)
        free += _workers(tasks[number], devices)
        for follower in followers[number]:
            open_inputs[follower] -= 1
            if not open_inputs[follower]:
                heapq.heappush(ready, (-paths[follower], follower))
    return now


def _workers(task: Task, devices: int) -> int:
    return min(task.workers, devices) if task.seconds else 0


def _duration(task: Task, devices: int) -> float:
    return task.seconds / max(1, _workers(task, devices))


def tasks_of(
    missing: Sequence[Step], seconds: Callable[[Step], float], resources: Resources, length: int
) -> list[Task]:
    """The tasks of a plan's missing steps, for pairs of ``length`` tokens. Each step must come
    after its inputs; ``seconds`` estimates how long it takes on one device."""
    number = {step.fingerprint: index for index, step in enumerate(missing)}
    shape = cache(shape_for)
    return [
        Task(
            seconds(step),
            _workers_of(step, resources, length, shape),
            tuple(number[i.fingerprint] for i in step.inputs if i.fingerprint in number),
        )
        for step in missing
    ]


def widest(missing: Iterable[Step], resources: Resources, length: int) -> Resources:
    """The resources with as many training workers as the largest training among the steps takes;
    unchanged if trainings cannot be spread over more workers (``train_workers_max``)."""
    if not resources.train_workers_max:
        return resources
    shape = cache(shape_for)
    trainings = (step for step in missing if isinstance(step, Sft | Dpo | RewardHead))
    found = (_workers_of(step, resources, length, shape) for step in trainings)
    workers = max(found, default=resources.train_workers)
    return replace(resources, train_workers=workers, train_workers_max=0)


def _workers_of(
    step: Step, resources: Resources, length: int, shape: Callable[[Model], Shape | None]
) -> int:
    match step:
        case Sft() | Dpo() | RewardHead():
            model = base_model(step.start)
            found = spread(step, shape(model) if model else None, resources, length)
            return max(1, found.train_workers)
        case WeakLabels() | GoldLabels() | Generate() | GoldReward() | Similarity():
            return resources.label_workers
        case _:
            return 1


def longest_first(arms: Iterable[Arm], seconds: Callable[[Step], float]) -> list[Arm]:
    """The arms, sorted so that those with the longest path of steps come first: if they started
    last, the study would have to wait for them at its end."""

    def longest(arm: Arm) -> float:
        ends: dict[str, float] = {}
        for step in walk(arm.targets):
            before = max((ends[one.fingerprint] for one in step.inputs), default=0.0)
            ends[step.fingerprint] = before + seconds(step)
        return max(ends.values(), default=0.0)

    return sorted(arms, key=lambda arm: -longest(arm))


def simulation_table(
    tasks: Sequence[Task], device: str, found: Sequence[Cost], prices: Prices
) -> Table:
    """A table of the hours and the money that all tasks take on 1, 8 and 64 devices, rented until
    the last task is done. Hours are those of the plan's ``device``."""
    table = Table(title=f"Simulated on so many {device}s", title_justify="left")
    paid = prices.workers.replace("_", " ")
    for heading in (f"{device}s", "hours", "at work", f"{prices.currency} ({paid})"):
        table.add_column(heading, justify="right")
    busy = sum(task.seconds for task in tasks)
    for devices in DEVICES:
        seconds = simulate(tasks, devices)
        share = f"{busy / (seconds * devices):.0%}" if seconds else ""
        amounts = sorted(
            rent(cost, prices, seconds / 3600 / prices.speeds(device)[cost.node.device], devices)
            for cost in found
        )
        ends = (f"{amount:,.2f}" for amount in amounts[:1] + amounts[-1:])
        money = " to ".join(dict.fromkeys(ends))
        table.add_row(str(devices), hours_text(seconds / 3600), share, money)
    return table


def rent(cost: Cost, prices: Prices, hours: float, devices: int) -> float:
    """The rent of as many whole nodes of the type as hold the devices, for so many hours."""
    return hours * math.ceil(devices / cost.node.devices) * cost.node.paid(prices.workers)
