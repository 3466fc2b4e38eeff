"""Arms as expressions of steps: a point of the space of studies, its students by role, and the grid
that sweeps go over."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from weakteach.artifacts.step import Step, jsonable
from weakteach.evaluation.gold import Gold
from weakteach.evaluation.judge import Judge
from weakteach.models.spec import Model, Tokenizer, tokenizer_of
from weakteach.steps.data import (
    Converted,
    Dequantized,
    HeldOut,
    Labels,
    Part,
    Policy,
    Pretrained,
    Split,
)
from weakteach.steps.evaluation import Agreement, Generate, GoldReward
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft
from weakteach.steps.views import Matched, Mismatched, RandomFlips, TopMargin
from weakteach.study.presets import Preset, Recipes

# What a student (or the teacher itself) learned from, in the order in which tables show it, and
# how figures call it.
ROLES = {
    "base": "base, not aligned",
    "sft": "human labels, SFT only",
    "human": "human labels",
    "human_all": "human labels of all pairs",
    "human_few": "human labels of the labeled part, as many updates",
    "gold": "gold labels",
    "prompted": "labels of a prompted model",
    "random": "human labels with random errors",
    "random_matched": "random errors, matched pairs only",
    "random_mismatched": "random errors, mismatched pairs only",
    "weak": "weak labels",
    "matched": "weak labels, matched pairs only",
    "mismatched": "weak labels, mismatched pairs only",
    "confident": "weak labels, the half with the larger margins",
    "teacher": "the teacher itself",
}
# Roles whose labels come from the teacher, or follow its errors.
OF_THE_TEACHER = (
    "random", "random_matched", "random_mismatched", "weak", "matched", "mismatched", "confident",
    "teacher",
)  # fmt: skip


# What every experiment compares at its main point.
CONTROLS = ("base", "sft", "human", "human_all", "human_few", "gold", "random", "weak")
HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Data:
    """Pairs cut for a study, the golds that score responses (the first is the main one), and the
    recipes that suit them. ``name`` is what reports call the domain."""

    name: str
    held_out: HeldOut
    golds: tuple[Gold, ...]
    teacher: Callable[[str], Recipes] = field(compare=False)
    student: Callable[[str], Recipes] = field(compare=False)

    @property
    def gold(self) -> Gold | None:
        return self.golds[0] if self.golds else None


@dataclass(frozen=True)
class Point:
    """All that may differ between two arms. ``beta`` is that of the students' DPO, None the
    recipe's; ``sft`` False aligns students from the base model; ``reward_head`` says that the
    teacher is a Bradley-Terry reward model instead of a DPO policy."""

    data: Data
    weak: Policy
    student: Policy
    fraction: Fraction
    seed: int
    beta: float | None = None
    sft: bool = True
    reward_head: bool = False


@dataclass(frozen=True)
class Setting:
    """What the arms of all seeds at a point have in common, as reports print it."""

    domain: str
    weak: str
    teacher: str
    student: str
    fraction: str
    beta: str
    sft: str

    def __str__(self) -> str:
        text = f"{self.domain} {self.weak} ({self.teacher}) {self.fraction} -> {self.student}"
        return f"{text} beta {self.beta}{'' if self.sft == 'with SFT' else ' without SFT'}"


@dataclass(frozen=True)
class Measure:
    """A step that measures a role of an arm. ``kind`` is what is measured, ``of`` by whom where
    there may be several (a gold, a judge)."""

    kind: str
    role: str
    of: str
    step: Step


@dataclass(frozen=True)
class Arm:
    """One trial: a point and what is measured there."""

    setting: Setting
    seed: int
    measures: tuple[Measure, ...]

    @property
    def name(self) -> str:
        return f"{self.setting} seed {self.seed}"

    @property
    def targets(self) -> tuple[Step, ...]:
        return tuple(dict.fromkeys(measure.step for measure in self.measures))

    @property
    def roles(self) -> tuple[str, ...]:
        found = {measure.role for measure in self.measures}
        return tuple(role for role in ROLES if role in found)


@dataclass(frozen=True)
class Lab:
    """The steps of one point. Equal points give equal steps, which are computed once."""

    point: Point
    max_new_tokens: int
    annotator: Callable[..., Labels] | None = None

    @cached_property
    def split(self) -> Split:
        return Split(self.point.data.held_out, self.point.fraction, self.point.seed)

    @cached_property
    def few(self) -> HumanLabels:
        return HumanLabels(self.split.labeled)

    @cached_property
    def human(self) -> HumanLabels:
        return HumanLabels(self.split.unlabeled)

    @cached_property
    def teacher(self) -> Dpo | RewardHead:
        point = self.point
        recipes = point.data.teacher(name_of(point.weak))
        if point.reward_head:
            return RewardHead(point.weak, self.few, recipes.reward, point.seed)
        start = Sft(point.weak, self.few, recipes.sft, point.seed)
        return Dpo(start, self.few, recipes.dpo, point.seed)

    @cached_property
    def weak(self) -> WeakLabels:
        return WeakLabels(self.teacher, self.split.unlabeled)

    @cached_property
    def gold(self) -> GoldLabels:
        if self.point.data.gold is None:
            raise ValueError("gold labels need a gold reward")
        return GoldLabels(self.split.unlabeled, self.point.data.gold)

    @cached_property
    def random(self) -> RandomFlips:
        return RandomFlips(self.human, self.weak, self.point.seed)

    def labels(self, role: str) -> Labels:
        """The labels that the student of a role learns from."""
        match role:
            case "sft" | "human":
                return self.human
            case "human_all":
                return HumanLabels(self.point.data.held_out.train)
            case "human_few":
                return self.few
            case "gold":
                return self.gold
            case "prompted" if self.annotator:
                return self.annotator(self.split.unlabeled)
            case "random":
                return self.random
            case "random_matched":
                return Matched(self.random, self.human)
            case "random_mismatched":
                return Mismatched(self.random, self.human)
            case "weak":
                return self.weak
            case "matched":
                return Matched(self.weak, self.human)
            case "mismatched":
                return Mismatched(self.weak, self.human)
            case "confident":
                return TopMargin(self.weak, HALF)
            case _:
                raise ValueError(f"a student in the role {role!r} learns from no labels")

    def policy(self, role: str) -> Policy:
        """The policy of a role: the student before or after alignment, or the teacher."""
        point = self.point
        if role == "base":
            return point.student
        if role == "teacher":
            return self.teacher
        labels, recipes = self.labels(role), point.data.student(name_of(point.student))
        # Fewer labels, as many updates: else the amount of training would differ as well.
        as_long_as = self.human if role == "human_few" else None
        sft = Sft(point.student, labels, recipes.sft, point.seed, as_long_as)
        if role == "sft":
            return sft
        dpo = recipes.dpo if point.beta is None else replace(recipes.dpo, beta=point.beta)
        return Dpo(sft if point.sft else point.student, labels, dpo, point.seed, as_long_as)

    def responses(self, role: str) -> Generate:
        test, seed = self.point.data.held_out.test, self.point.seed
        return Generate(self.policy(role), test, seed, max_new_tokens=self.max_new_tokens)

    def outcomes(self, roles: Iterable[str]) -> list[Measure]:
        """What the students of these roles are compared by: the gold reward of their responses, or
        how often they agree with human choices where no gold is known. The weak role also gets
        what its teacher is worth: its agreement on the unlabeled and its accuracy on the test part.
        """
        found = []
        for role in roles:
            if gold := self.point.data.gold:
                found.append(self.reward(role, gold))
            elif role not in ("base", "sft", "gold", "teacher"):
                found.append(self.accuracy(role))
            if role == "weak":
                found += [self.agreement, self.teacher_accuracy]
        return found

    def reward(self, role: str, gold: Gold) -> Measure:
        return Measure("reward", role, str(gold), GoldReward(self.responses(role), gold))

    def accuracy(self, role: str) -> Measure:
        """Of a student's own implicit reward against human choices on the test part."""
        policy = self.policy(role)
        if not isinstance(policy, Dpo):
            raise ValueError(f"a student in the role {role!r} has no implicit reward")
        labels = WeakLabels(policy, self.point.data.held_out.test)
        return Measure("accuracy", role, "", Agreement(labels))

    @property
    def agreement(self) -> Measure:
        gold = self.gold if self.point.data.gold else None
        return Measure("agreement", "weak", "", Agreement(self.weak, gold))

    @property
    def teacher_accuracy(self) -> Measure:
        test, gold = self.point.data.held_out.test, self.point.data.gold
        known = GoldLabels(test, gold) if gold else None
        step = Agreement(WeakLabels(self.teacher, test), known)
        return Measure("teacher_accuracy", "weak", "", step)

    @property
    def setting(self) -> Setting:
        point = self.point
        beta = point.beta
        if beta is None:
            beta = point.data.student(name_of(point.student)).dpo.beta
        return Setting(
            domain=point.data.name,
            weak=name_of(point.weak),
            teacher="reward head" if point.reward_head else "DPO",
            student=name_of(point.student),
            fraction=str(point.fraction),
            beta=f"{beta:g}",
            sft="with SFT" if point.sft else "without SFT",
        )


@dataclass(frozen=True)
class Grid:
    """What sweeps go over, with names resolved to models, data and golds.

    ``student`` and the first of ``weak`` are the main ones, in experiments over something else.
    ``summaries`` is the second domain, ``families`` students and ``others`` teachers of other
    architectures, ``more_seeds`` seeds of the experiment over seeds alone, ``annotator`` makes
    labels of a part by a prompted model, ``judge`` compares responses, ``embedding`` finds the
    model of sentence vectors, which only one experiment needs.
    """

    preset: Preset
    data: Data
    summaries: Data | None
    weak: tuple[Policy, ...]
    student: Policy
    students: tuple[Policy, ...]
    families: tuple[Policy, ...]
    others: tuple[Policy, ...]
    fractions: tuple[Fraction, ...]
    seeds: tuple[int, ...]
    more_seeds: tuple[int, ...]
    betas: tuple[float, ...]
    annotator: Callable[[Part], Labels] | None = None
    judge: Judge | None = None
    embedding: Callable[[], Model] | None = None

    def point(self, seed: int) -> Point:
        """The main point: smallest teacher, main student, half of the pairs labeled (or the
        largest fraction that the grid goes over, where it leaves out the half)."""
        fraction = HALF if HALF in self.fractions else max(self.fractions)
        return Point(self.data, self.weak[0], self.student, fraction, seed)

    def lab(self, point: Point) -> Lab:
        return Lab(point, self.preset.max_new_tokens, self.annotator)

    @property
    def controls(self) -> tuple[str, ...]:
        """The control roles that can be had: gold labels need a gold."""
        return tuple(role for role in CONTROLS if role != "gold" or self.data.gold)


def name_of(policy: Policy) -> str:
    """What a model is called: its label."""
    return str(policy)


def policy_of(model: Model, documents: int) -> Policy:
    """What training and labeling read: the model itself, its plain form if it is a GGUF or
    pickled, or the step that pretrains it on as many documents if it is embedded but not shipped.
    """
    if model.is_untrained:
        return Pretrained(model.label, documents)
    if model.is_pickled:
        return Converted(model)
    return Dequantized(model) if model.is_gguf else model


def tokenizers_of(*models: Policy) -> tuple[Tokenizer | Dequantized, ...]:
    """The different tokenizers of the models, in an order that is not that of the models."""
    found: set[Tokenizer | Dequantized] = set()
    for model in models:
        match model:
            case Dequantized():
                found.add(model)
            case Pretrained() | Converted():
                found.add(tokenizer_of(model.model))
            case Model():
                found.add(tokenizer_of(model))
            case _:
                raise ValueError(f"{model} is no pretrained model")
    return tuple(sorted(found, key=lambda item: json.dumps(jsonable(item))))
