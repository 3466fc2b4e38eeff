"""Memory of a process that computes many steps, as a trial of a long sweep does.

    python tests/benchmarks/memory_of_steps.py --rounds 100

As in a sweep, trials of Ray Tune follow each other in one process; each computes a round of cheap
steps of the kinds that a study has most of, on tiny data and with its own seed. Told is what that
process holds, and the largest of those that label for it. Exits with 1 if either ends with over
10 % more than it held after a fifth of the rounds, when caches and allocators are full.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
from cyclopts import Parameter
from cyclopts.validators import Number
from ray import tune
from rich.console import Console

from weakteach.artifacts.computing import obtain_each
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import WorldGold
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model
from weakteach.preferences.sources import WorldSource
from weakteach.run.cluster import start_ray
from weakteach.run.terminal import launch, script
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.evaluation import Agreement, Generate, GoldReward
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft
from weakteach.steps.views import Matched, TopMargin
from weakteach.study.policies import tokenizers_of
from weakteach.training.recipes import DpoRecipe, RewardRecipe, Schedule, SftRecipe
from weakteach.worlds.domains import DOMAINS

GROWTH = 0.1
POINTS = 20
SCHEDULE = Schedule(1e-4, batch=4, steps=2)


def steps_of(seed: int) -> Iterator[Step]:
    """One step of each kind that a study has most of, inputs before their readers."""
    model, gold = find_model("opt-45k"), WorldGold(DOMAINS["world"])
    held_out = HeldOut(Pairs(WorldSource(48), tokenizers_of(model)), 8)
    split = Split(held_out, Fraction(1, 2), seed)
    human = HumanLabels(split.labeled)
    sft = Sft(model, human, SftRecipe(SCHEDULE), seed)
    teacher = Dpo(sft, human, DpoRecipe(SCHEDULE, lora=None), seed)
    head = RewardHead(model, human, RewardRecipe(SCHEDULE), seed)
    weak = WeakLabels(teacher, split.unlabeled)
    exact = GoldLabels(split.unlabeled, gold)
    responses = Generate(teacher, held_out.test, seed, max_new_tokens=4)
    yield from (
        split, human, sft, teacher, head, weak, WeakLabels(head, split.unlabeled), exact,
        Agreement(weak, exact), Matched(weak, HumanLabels(split.unlabeled)),
        TopMargin(weak, Fraction(1, 2)), responses,
        GoldReward(responses, gold),
    )  # fmt: skip


def run_round(config: dict[str, Any], url: str) -> None:
    """A trial: computes a round of steps, and tells what this process and its siblings hold."""
    steps = list(steps_of(config["seed"]))
    outcomes = obtain_each(Store(url), steps, Resources())
    failed = [str(error) for error in outcomes.values() if isinstance(error, Exception)]
    tune.report(
        {"computed": len(steps), "own": resident(), "labeler": largest_labeler(), "failed": failed}
    )


def resident(process: psutil.Process | None = None) -> float:
    """MiB."""
    return (process or psutil.Process()).memory_info().rss / (1 << 20)


def largest_labeler() -> float:
    """MiB of the largest worker of this Ray but for this one."""
    me = psutil.Process()
    raylet = me.parent()
    siblings = raylet.children() if raylet else []
    return max((resident(worker) for worker in siblings if is_worker(worker, me)), default=0.0)


def is_worker(process: psutil.Process, me: psutil.Process) -> bool:
    return process != me and "ray::" in " ".join(process.cmdline())


class Teller(tune.Callback):
    """Prints what the rounds told, at some points of the way."""

    def __init__(self, console: Console, rounds: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._console, self._rounds, self._started = console, rounds, time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its callbacks for a restore

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self.rows.append(result)
        if len(self.rows) % max(1, self._rounds // POINTS) == 0:
            steps = sum(row["computed"] for row in self.rows)
            seconds = time.monotonic() - self._started
            self._console.print(
                f"{steps} steps, {seconds:.0f} s: trial {result['own']:.0f} MiB, "
                f"largest of the other workers {result['labeler']:.0f} MiB",
                highlight=False,
            )


def main(
    rounds: Annotated[int, Parameter(help="Rounds of 13 steps.", validator=Number(gte=5))] = 100,
) -> None:
    """Watch the memory of a process that computes many cheap steps, one trial after the other."""
    start_ray(None, 1, Resources(), verbose=False)
    teller = Teller(Console(), rounds)
    with tempfile.TemporaryDirectory(prefix="weakteach-memory-") as folder:
        tuner = tune.Tuner(
            tune.with_parameters(run_round, url=f"{folder}/store"),
            param_space={"seed": tune.grid_search(list(range(rounds)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=f"{folder}/tune", verbose=0, callbacks=[teller]),
        )
        results = tuner.fit()
    problems = [*map(str, results.errors), *(why for row in teller.rows for why in row["failed"])]
    if problems:
        raise SystemExit(problems[0])
    growth = {
        name: teller.rows[-1][name] / teller.rows[rounds // 5 - 1][name] - 1
        for name in ("own", "labeler")
    }
    print(f"Over the last four fifths: trial {growth['own']:+.1%}, others {growth['labeler']:+.1%}")
    raise SystemExit(max(growth.values()) > GROWTH)


if __name__ == "__main__":
    launch(script(main))
