"""What a study would compute, before anything runs."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from rich.table import Table

from weakteach.artifacts.dropping import at_hand
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import RewardModel
from weakteach.models.memory import typical_shape
from weakteach.models.size import parameters
from weakteach.models.spec import Model
from weakteach.preferences.sources import pairs_about
from weakteach.steps.data import (
    HeldOut,
    Labels,
    Pairs,
    Part,
    Pretrained,
    Split,
)
from weakteach.steps.evaluation import Generate, GoldReward, Similarity
from weakteach.steps.labels import GoldLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft, base_model
from weakteach.steps.verdict import Fold
from weakteach.steps.views import TopMargin
from weakteach.study.experiment import Experiment, arms_of
from weakteach.study.measures import Arm
from weakteach.study.presets import Scale

# Floating-point operations per parameter and token: a forward pass, and one with its backward.
FORWARD, TRAIN = 2, 6
# Mean tokens, with padding, of a document that embedded models are pretrained on.
DOCUMENT_TOKENS = 55
# Records of steps of one kind and model that are read to tell how long such a step takes.
ENOUGH_RECORDS = 16
CPU = "CPU core"


@dataclass(frozen=True)
class PlanRow:
    """Steps of one kind: how often all arms use them, how many different ones there are, how many
    of these exist, and the estimated device-seconds of those that are missing."""

    kind: str
    used: int
    unique: int
    existing: int
    device_seconds: float


@dataclass(frozen=True)
class Plan:
    """The unique steps of a study by kind. ``unsized`` are the models of missing steps whose size
    is not known: the estimates of such steps are 0. ``uncounted`` are the sources of pairs whose
    number is not known: their training part is taken for ``train_pairs``. ``missing`` are the steps
    to compute, each after its inputs, and ``estimates`` are their device-seconds by fingerprint."""

    arms: int
    rows: tuple[PlanRow, ...]
    device: str
    unsized: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    train_pairs: int = 0
    missing: tuple[Step, ...] = ()
    estimates: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, step: Step) -> float:
        """Estimated device-seconds of a step that is missing; 0 of one that exists."""
        return self.estimates.get(step.fingerprint, 0.0)

    @property
    def unique(self) -> int:
        return sum(row.unique for row in self.rows)

    @property
    def existing(self) -> int:
        return sum(row.existing for row in self.rows)

    @property
    def used(self) -> int:
        return sum(row.used for row in self.rows)

    @property
    def device_hours(self) -> float:
        return sum(row.device_seconds for row in self.rows) / 3600


def make_plan(arms: Iterable[Arm], store: Store, scale: Scale) -> Plan:
    """Count the steps of the arms, and estimate how long each missing one takes: by the times of
    steps of its kind and model that the plan's device has computed, or else by ``seconds_of``."""
    arms = list(arms)
    per_arm = [walk(arm.targets) for arm in arms]
    unique = walk(target for arm in arms for target in arm.targets)
    existing = at_hand(store, unique)
    scale = counted(scale, store, unique)
    used = Counter(type(step).__name__ for steps in per_arm for step in steps)
    to_do = tuple(step for step in unique if step.fingerprint not in existing)
    there = [step for step in unique if step.fingerprint in existing]
    seconds = measured(_times(store, there, to_do, scale), scale)
    estimates = {step.fingerprint: seconds(step) for step in to_do}
    rows = []
    unsized: dict[str, None] = {}
    for kind in dict.fromkeys(type(step).__name__ for step in unique):
        steps = [step for step in unique if type(step).__name__ == kind]
        missing = [step for step in steps if step.fingerprint not in existing]
        taken = sum(estimates[step.fingerprint] for step in missing)
        rows.append(PlanRow(kind, used[kind], len(steps), len(steps) - len(missing), taken))
        models = [model for step in missing if (model := model_of(step))]
        unsized |= {model.label: None for model in models if not parameters(model)}
    pairs = [step for step in unique if isinstance(step, Pairs)]
    uncounted = [one.source.name for one in pairs if one.fingerprint not in scale.pairs]
    return Plan(
        len(arms), tuple(rows), scale.device, tuple(unsized), tuple(uncounted), scale.train_pairs,
        to_do, estimates,
    )  # fmt: skip


def counted(scale: Scale, store: Store, steps: Iterable[Step]) -> Scale:
    """The scale with the numbers of pairs that are known: by the records of the Pairs among the
    ``steps`` or, where there is none yet, by their sources."""
    known: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Pairs):
            record = store.record(step)
            count = record["facts"]["pairs"] if record else pairs_about(step.source)
            if count is not None:
                known[step.fingerprint] = count
    return replace(scale, pairs=known)


def _times(
    store: Store, there: Iterable[Step], wanted: Iterable[Step], scale: Scale
) -> Iterator[tuple[Step, float]]:
    """Yield existing steps that the scale's device has computed, and their device-seconds. They are
    of the kinds and models of ``wanted`` steps that have an estimate, at most ENOUGH_RECORDS of
    each."""
    kinds = {kind_of(step) for step in wanted if seconds_of(step, scale)}
    by_kind: dict[tuple[str, str], list[Step]] = {}
    for step in there:
        if kind_of(step) in kinds:
            by_kind.setdefault(kind_of(step), []).append(step)
    for steps in by_kind.values():
        for step in islice(steps, ENOUGH_RECORDS):
            record = store.record(step)
            if record and device_of(record) == scale.device:
                yield step, record["device_seconds"]


def device_of(record: Mapping[str, Any]) -> str:
    """The device that computed a step, by its name in plans; empty where its record tells none."""
    execution = record.get("execution")
    if not isinstance(execution, Mapping):
        return ""
    return str(execution.get("gpu_type", "")) if execution.get("gpus") else CPU


def kind_of(step: Step) -> tuple[str, str]:
    """The name of a step's class and that of the model that it computes with, if there is one."""
    model = model_of(step)
    return type(step).__name__, model.label if model else ""


def measured(took: Iterable[tuple[Step, float]], scale: Scale) -> Callable[[Step], float]:
    """A function that estimates a step's seconds by those that steps of its kind and model took: it
    multiplies the step's ``seconds_of`` by the ratio of what those steps took to the sum of their
    ``seconds_of``. Where that sum is 0, it gives the mean of what they took, and for a step of
    another kind or model ``seconds_of``."""
    seconds: dict[tuple[str, str], list[float]] = {}
    estimates: dict[tuple[str, str], float] = {}
    for step, one in took:
        kind = kind_of(step)
        seconds.setdefault(kind, []).append(one)
        estimates[kind] = estimates.get(kind, 0.0) + seconds_of(step, scale)

    def estimate(step: Step) -> float:
        kind, estimated = kind_of(step), seconds_of(step, scale)
        if kind not in seconds:
            return estimated
        total = sum(seconds[kind])
        if estimates[kind]:
            return estimated * total / estimates[kind]
        return total / len(seconds[kind])

    return estimate


def plan_table(plan: Plan) -> Table:
    table = Table(title=f"{plan.arms} arms", title_justify="left")
    for heading in ("step", "used", "unique", "exist", "to compute", f"{plan.device}-hours"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for row in plan.rows:
        missing = row.unique - row.existing
        hours = hours_text(row.device_seconds / 3600)
        table.add_row(row.kind, *map(str, (row.used, row.unique, row.existing, missing)), hours)
    table.add_section()
    missing = plan.unique - plan.existing
    counts = map(str, (plan.used, plan.unique, plan.existing, missing))
    table.add_row("all", *counts, hours_text(plan.device_hours))
    return table


def plan_sentence(plan: Plan) -> str:
    if not plan.used:
        return "No arm is left to run."
    shared = plan.used - plan.unique
    unknown = f", without {', '.join(plan.unsized)} of unknown size" if plan.unsized else ""
    names = ", ".join(plan.uncounted)
    guess = f"; {plan.train_pairs:,} training pairs of {names}, not counted yet" if names else ""
    return (
        f"{plan.unique} unique steps, {plan.existing} of which exist. Sharing saves {shared} of "
        f"{plan.used} steps ({shared / plan.used:.0%}). To compute: about "
        f"{hours_text(plan.device_hours)} {plan.device}-hours (estimated from model and data "
        f"sizes{unknown}{guess})."
    )


def hours_text(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def seconds_of(step: Step, scale: Scale) -> float:
    """Estimated device-seconds of a step: its operations over the scale's speed and, where tokens
    are drawn one after the other, the steps of decoding, each of which calls every layer. The sizes
    of data are those of the scale, and each pair counts as a prompt of its own."""
    seconds = operations(step, scale) / scale.flops_per_second
    model = model_of(step)
    if isinstance(step, Generate) and model and (size := parameters(model)):
        together = math.ceil(_pairs(step.part, scale) * step.samples / scale.decode_rows)
        layers = typical_shape(size).layers
        seconds += together * step.max_new_tokens * layers * scale.decode_layer_seconds
    return seconds


def operations(step: Step, scale: Scale) -> float:
    """Estimated floating-point operations of a step (Kaplan et al. 2020: 2 per parameter and
    token forward, 6 with the backward pass)."""
    model = model_of(step)
    if model is None:
        return 0.0
    size = parameters(model)
    sequence = scale.prompt_tokens + scale.response_tokens
    match step:
        case Pretrained():
            return TRAIN * size * DOCUMENT_TOKENS * step.documents
        case Sft():
            return TRAIN * size * sequence * _examples(step, scale)
        case Dpo():  # two responses, and the reference's forward pass
            return (TRAIN + FORWARD) * size * 2 * sequence * _examples(step, scale)
        case RewardHead():  # two responses
            return TRAIN * size * 2 * sequence * _examples(step, scale)
        case WeakLabels(teacher=RewardHead()):  # two responses
            return FORWARD * size * 2 * sequence * _pairs(step.part, scale)
        case WeakLabels():  # two responses under two models
            return FORWARD * size * 4 * sequence * _pairs(step.part, scale)
        case Generate():
            tokens = scale.prompt_tokens + step.samples * step.max_new_tokens
            return FORWARD * size * tokens * _pairs(step.part, scale)
        case GoldReward():
            generate = step.responses
            responses = generate.samples * _pairs(generate.part, scale)
            return FORWARD * size * sequence * responses
        case GoldLabels():
            return FORWARD * size * 2 * sequence * _pairs(step.part, scale)
        case Similarity():  # the generated and the chosen response
            return FORWARD * size * 2 * scale.response_tokens * _pairs(step.part, scale)
        case _:
            return 0.0


def model_of(step: Step) -> Model | None:
    """The model that a step trains or runs; None if it does neither."""
    match step:
        case Pretrained():
            return step.model
        case Sft() | Dpo() | RewardHead():
            return base_model(step.start)
        case WeakLabels():
            return base_model(step.teacher)
        case Generate():
            return base_model(step.policy)
        case GoldReward(gold=RewardModel(model=model)) | GoldLabels(gold=RewardModel(model=model)):
            return base_model(model)
        case Similarity():
            return step.model
        case _:
            return None


def _examples(step: Sft | Dpo | RewardHead, scale: Scale) -> float:
    """The most pairs that a training reads, where each epoch counts its pairs again."""
    schedule = step.recipe.schedule
    if isinstance(step.as_long_as, Dpo):
        return _examples(step.as_long_as, scale)
    if schedule.steps:
        return schedule.steps * schedule.batch
    return schedule.epochs * _labeled_pairs(step.as_long_as or step.labels, scale)


def _labeled_pairs(labels: Labels, scale: Scale) -> float:
    """The estimated number of labeled pairs. Views that keep the matched or the mismatched pairs
    count as if they kept all."""
    share = float(labels.share) if isinstance(labels, TopMargin) else 1.0
    return share * _pairs(labels.part, scale)


def _pairs(part: Part, scale: Scale) -> float:
    match part.step, part.name:
        case Split(fraction=fraction, held_out=held_out), "labeled":
            return float(fraction) * _pairs(held_out.train, scale)
        case Split(fraction=fraction, held_out=held_out), _:
            return (1 - float(fraction)) * _pairs(held_out.train, scale)
        case Fold(folds=folds, share=share), name:
            one = 1 / folds.folds
            of_all = one if name == "held_out" else (1 - one) * float(share)
            return of_all * _pairs(folds.part, scale)
        case HeldOut(test_pairs=test_pairs), "test":
            return test_pairs
        case HeldOut(gold_pairs=gold_pairs), "set_aside":
            return gold_pairs
        case HeldOut(pairs=pairs, test_pairs=test_pairs, gold_pairs=gold_pairs), _:
            count = scale.pairs.get(pairs.fingerprint)
            # Too few pairs are refused by the step that divides them.
            return scale.train_pairs if count is None else max(0, count - test_pairs - gold_pairs)
        case Pairs() as pairs, _:
            return scale.pairs.get(pairs.fingerprint, scale.train_pairs)
        case _:
            return scale.train_pairs


def experiments_table(experiments: Sequence[Experiment], store: Store) -> Table:
    """For each experiment its arms and steps, how many of them an earlier row has too, and how many
    are still to compute."""
    table = Table(title=f"{len(experiments)} experiments", title_justify="left")
    for heading in ("", "experiment", "arms", "steps", "shared", "new", "to compute"):
        table.add_column(heading, justify="left" if heading in ("", "experiment") else "right")
    seen: set[str] = set()
    for experiment in experiments:
        arms = arms_of([experiment])
        steps = walk(target for arm in arms for target in arm.targets)
        new = [step for step in steps if step.fingerprint not in seen]
        missing = len(new) - len(at_hand(store, steps) & {step.fingerprint for step in new})
        seen |= {step.fingerprint for step in new}
        counts = (len(arms), len(steps), len(steps) - len(new), len(new), missing)
        table.add_row(experiment.id, experiment.title, *map(str, counts))
    return table
