"""Arms as expressions of steps, and the grids that they are cut from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from weakteach.artifacts.step import Step, jsonable
from weakteach.evaluation.gold import Gold
from weakteach.models.spec import Model, Tokenizer, tokenizer_of
from weakteach.preferences.sources import Source
from weakteach.study.presets import Preset
from weakteach.study.steps.data import Dequantized, HeldOut, Labels, Pairs, Policy, Split
from weakteach.study.steps.evaluation import Agreement, Generate, GoldReward
from weakteach.study.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.study.steps.training import Dpo, Sft

# Roles of the student, in the order in which tables show them.
ROLES = ("base", "sft", "human", "gold", "weak")


@dataclass(frozen=True)
class Grid:
    """What a sweep goes over, with names resolved to models, data and gold."""

    preset: Preset
    source: Source
    gold: Gold | None
    weak: tuple[Model, ...]
    student: Model
    fractions: tuple[Fraction, ...]
    seeds: tuple[int, ...]

    @property
    def pairs(self) -> Pairs:
        """The pairs of the study: short enough for every model, so the same in every arm."""
        return Pairs(self.source, tokenizers_of(*self.weak, self.student), self.preset.max_tokens)

    @property
    def held_out(self) -> HeldOut:
        return HeldOut(self.pairs, self.preset.test_pairs)

    def points(self) -> Iterator[tuple[Model, Fraction, int]]:
        """Weak model, fraction and seed of each arm; neighbors share the most steps."""
        for seed, fraction, weak in product(self.seeds, self.fractions, self.weak):
            yield weak, fraction, seed


@dataclass(frozen=True)
class Arm:
    """One point of a grid.

    ``rewards`` holds the gold reward of the student in each role, and is empty where no gold is
    known. ``accuracies`` tells, for the aligned roles, how often the student's own implicit
    reward agrees with human choices on the test part. ``agreement`` is that of the teacher's
    labels on the unlabeled, ``teacher_accuracy`` that on the test part.
    """

    weak: Model
    student: Model
    fraction: Fraction
    seed: int
    rewards: tuple[tuple[str, GoldReward], ...]
    accuracies: tuple[tuple[str, Agreement], ...]
    agreement: Agreement
    teacher_accuracy: Agreement

    @property
    def name(self) -> str:
        return f"{self.weak} {self.fraction} seed {self.seed}"

    @property
    def targets(self) -> tuple[Step, ...]:
        roles = (step for _, step in (*self.rewards, *self.accuracies))
        return (self.teacher_accuracy, self.agreement, *roles)

    @property
    def roles(self) -> tuple[str, ...]:
        known = dict((*self.rewards, *self.accuracies))
        return tuple(role for role in ROLES if role in known)


def policy_of(model: Model) -> Policy:
    """What training and labeling read: the model itself, or its plain form if it is a GGUF."""
    return Dequantized(model) if model.is_gguf else model


def tokenizers_of(*models: Model) -> tuple[Tokenizer | Dequantized, ...]:
    """The different tokenizers of the models, in an order that is not that of the models."""
    found = {Dequantized(m) if m.is_gguf else tokenizer_of(m) for m in models}
    return tuple(sorted(found, key=lambda item: json.dumps(jsonable(item))))


def size_arm(grid: Grid, weak: Model, fraction: Fraction, seed: int) -> Arm:
    """Teacher of this size, trained on this fraction; student on its labels, and its baselines.

    The baselines are the student before alignment, after SFT on human labels alone, and aligned
    on human (and gold) labels of the very pairs that the teacher labels.
    """
    preset, student = grid.preset, policy_of(grid.student)
    teach, learn = preset.teacher_recipes(weak), preset.student_recipes(grid.student)
    test = grid.held_out.test
    split = Split(grid.held_out, fraction, seed)

    few = HumanLabels(split.labeled)
    teacher = Dpo(Sft(policy_of(weak), few, teach.sft, seed), few, teach.dpo, seed)
    weak_labels = WeakLabels(teacher, split.unlabeled)
    human = HumanLabels(split.unlabeled)

    def aligned(labels: Labels) -> Dpo:
        return Dpo(Sft(student, labels, learn.sft, seed), labels, learn.dpo, seed)

    def compared(labels: WeakLabels) -> Agreement:
        return Agreement(labels, GoldLabels(labels.part, grid.gold) if grid.gold else None)

    students = {"human": aligned(human), "weak": aligned(weak_labels)}
    rewards: dict[str, GoldReward] = {}
    if grid.gold:
        students["gold"] = aligned(GoldLabels(split.unlabeled, grid.gold))
        policies = {"base": student, "sft": Sft(student, human, learn.sft, seed), **students}
        for role, policy in policies.items():
            responses = Generate(policy, test, seed, max_new_tokens=preset.max_new_tokens)
            rewards[role] = GoldReward(responses, grid.gold)
    return Arm(
        weak=weak,
        student=grid.student,
        fraction=fraction,
        seed=seed,
        rewards=tuple(rewards.items()),
        accuracies=tuple((role, Agreement(WeakLabels(s, test))) for role, s in students.items()),
        agreement=compared(weak_labels),
        teacher_accuracy=compared(WeakLabels(teacher, test)),
    )
