"""Arms as expressions of steps: a point of the space of studies, its students by role, and the grid
that sweeps go over."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

from weakteach.artifacts.step import Step
from weakteach.evaluation.gold import Gold
from weakteach.evaluation.judge import Judge
from weakteach.models.spec import Dtype, Model
from weakteach.steps.data import Labels, Part, Policy, Split
from weakteach.steps.evaluation import Agreement, Generate, GoldReward
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.teachers import Alike, Reliability
from weakteach.steps.training import Dpo, RewardHead, dpo_from, sft_before
from weakteach.steps.verdict import Fold, Folds, Verdict, cross_fitted
from weakteach.steps.views import (
    Calibrated,
    Claimed,
    Ensemble,
    Gated,
    Matched,
    Mismatched,
    RandomFlips,
    Together,
    TopMargin,
    Weighted,
)
from weakteach.study.measures import Measure, Setting
from weakteach.study.points import Data, Point
from weakteach.study.policies import name_of
from weakteach.study.presets import Preset, Ranges
from weakteach.study.roles import CONTROLS, HALF, RETRAINED, TOP, WEIGHTINGS
from weakteach.training.recipes import Schedule, changes_of

FOLDS_OF_A_VERDICT = 4
# The most epochs of a training that ends when held-out pairs gain no more. R11 says where they
# still gain after these.
MOST_EPOCHS = 10.0
# What is added to the seed of a retrained teacher: more than any seed of rounds.
ANOTHER_SEED = 1_000_000
Annotator = Callable[[Part], Labels]


@dataclass(frozen=True)
class Lab:
    """The steps of one point. Equal points give equal steps, which are computed once. ``voters``
    are the models of the teachers that label by vote."""

    point: Point
    max_new_tokens: int
    dtype: Dtype
    annotators: Mapping[str, Annotator] = field(default_factory=dict)
    samples: int = 1
    gate: float | None = None
    voters: tuple[Policy, ...] = ()

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
        return self.trained_on(self.few)

    def trained_on(self, few: HumanLabels) -> Dpo | RewardHead:
        """The teacher of this point, trained on these labels, for as many updates as the teacher of
        half of the pairs: else fractions would differ in the amount of training as well."""
        point = self.point
        recipes, dtype = point.data.teacher(name_of(point.weak)), self.dtype
        seed = point.seed + ANOTHER_SEED * point.retrained
        half = None
        if point.fraction != HALF:
            half = HumanLabels(replace(self.split, fraction=HALF).labeled)

        def longer(schedule: Schedule) -> HumanLabels | None:
            return None if schedule.steps else half

        if point.teacher == "reward head":
            how = (longer(recipes.reward.schedule), dtype, dtype)
            return RewardHead(point.weak, few, recipes.reward, seed, *how)
        of_sft, of_dpo = longer(recipes.sft.schedule), longer(recipes.dpo.schedule)
        sft = sft_before(recipes.dpo, point.weak, few, recipes.sft, seed, dtype, of_sft)
        start = sft if point.teacher == "DPO" else point.weak
        return dpo_from(start, few, recipes.dpo, seed, dtype, of_dpo)

    @cached_property
    def weak(self) -> WeakLabels:
        return WeakLabels(self.teacher, self.split.unlabeled, self.dtype)

    @cached_property
    def tested(self) -> WeakLabels:
        """The teacher's labels of the test part."""
        return WeakLabels(self.teacher, self.point.data.held_out.test, self.dtype)

    @cached_property
    def taught(self) -> Labels:
        """The weak labels that students learn from: all, or those that pass the gate."""
        return Gated(self.weak, self.verdict, self.gate) if self.gate else self.weak

    @cached_property
    def gold(self) -> GoldLabels:
        if self.point.data.gold is None:
            raise ValueError("gold labels need a gold reward")
        return GoldLabels(self.split.unlabeled, self.point.data.gold)

    @cached_property
    def random(self) -> RandomFlips:
        return RandomFlips(self.human, self.taught, self.point.seed)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the teacher's model and recipes, by cross-fitting on the labeled part."""
        folds, name = Folds(self.split.labeled, FOLDS_OF_A_VERDICT, 1), name_of(self.point.weak)
        return Verdict(folds, cross_fitted(name, self.point.seed, folds, self.trained_on))

    def labels(self, role: str) -> Labels:
        """The labels that the student of a role learns from."""
        match role:
            case "sft" | "human":
                return self.human
            case "human_all":
                return HumanLabels(self.point.data.held_out.train)
            case "human_few" | "few_long" | "few_stopped":
                return self.few
            case "gold":
                return self.gold
            case "random":
                return self.random
            case "random_matched":
                return Matched(self.random, self.human)
            case "random_mismatched":
                return Mismatched(self.random, self.human)
            case "weak":
                return self.taught
            case "matched":
                return Matched(self.taught, self.human)
            case "mismatched":
                return Mismatched(self.taught, self.human)
            case _ if role in TOP:
                return TopMargin(self.taught, TOP[role])
            case _ if role in WEIGHTINGS:
                return Weighted(self.taught, WEIGHTINGS[role])
            case "soft":
                return Calibrated(self.taught, self.verdict)
            case "target":
                return Claimed(self.taught)
            case "ensemble":
                labs = (replace(self, point=replace(self.point, weak=one)) for one in self.voters)
                return Ensemble(tuple(lab.taught for lab in labs))
            case "both":
                return Together(self.few, self.taught, self.point.data.held_out.train)
            case _ if annotator := self.annotators.get(role):
                return annotator(self.split.unlabeled)
            case _:
                raise ValueError(f"a student in the role {role!r} learns from no labels")

    def policy(self, role: str) -> Policy:
        """The policy of a role: the student before or after alignment, or the teacher."""
        point = self.point
        if role == "base":
            return point.student
        if role == "teacher":
            return self.teacher
        if role == "few_stopped":
            return self._stopped
        labels, recipes = self.labels(role), point.data.student(name_of(point.student))
        # Fewer labels, as many updates: else the amount of training would differ as well.
        longer = {"human_few": self.human, "few_long": HumanLabels(point.data.held_out.train)}
        # SFT is shared with the labels below: the added column is read by the loss of DPO alone.
        chosen = labels.labels if isinstance(labels, Weighted | Calibrated | Claimed) else labels
        how = (point.seed, self.dtype, longer.get(role))
        sft = sft_before(recipes.dpo, point.student, chosen, recipes.sft, *how)
        if role == "sft":
            return sft
        start, dpo = sft if point.sft else point.student, point.dpo or recipes.dpo
        if isinstance(labels, Weighted | Ensemble):
            dpo = replace(dpo, weighted=True)
        elif isinstance(labels, Calibrated | Claimed):
            dpo = replace(dpo, loss="cdpo", soft=True)
        return dpo_from(start, labels, dpo, *how)

    @cached_property
    def _stopped(self) -> Dpo:
        """A student of all human labels of the labeled part. Its DPO makes as many updates as were
        best for a student of three quarters of these labels, by the loss on the last quarter."""
        point = self.point
        recipes = point.data.student(name_of(point.student))
        dpo, how = point.dpo or recipes.dpo, (point.seed, self.dtype)

        def start(labels: Labels) -> Policy:
            sft = sft_before(recipes.dpo, point.student, labels, recipes.sft, *how)
            return sft if point.sft else point.student

        fold = Fold(Folds(self.split.labeled, FOLDS_OF_A_VERDICT, 1), 0, 0)
        train, held_out = HumanLabels(fold.train), HumanLabels(fold.held_out)
        longest = replace(dpo, schedule=replace(dpo.schedule, epochs=MOST_EPOCHS, steps=None))
        found = dpo_from(start(train), train, longest, *how, until=held_out)
        return dpo_from(start(self.few), self.few, dpo, *how, found)

    def responses(self, role: str) -> Generate:
        return self._responses_of(self.policy(role))

    def _responses_of(self, policy: Policy) -> Generate:
        test, seed = self.point.data.held_out.test, self.point.seed
        return Generate(
            policy,
            test,
            seed,
            max_new_tokens=self.max_new_tokens,
            dtype=self.dtype,
            samples=self.samples,
        )

    def outcomes(self, roles: Iterable[str]) -> list[Measure]:
        """The measures by which the students of these roles are compared: with a gold, the gold
        reward of their responses, preceded by the accuracy of that gold; without one, how often
        they agree with human choices. The weak role also gets two measures of its teacher: its
        agreement on the unlabeled part and its accuracy on the test part."""
        found: list[Measure] = []
        for role in roles:
            if gold := self.point.data.gold:
                if not found:
                    found.append(self.gold_accuracy(gold))
                found.append(self.reward(role, gold))
            elif role not in ("base", "sft", "gold", "teacher"):
                found.append(self.accuracy(role))
            if role == "weak":
                found += [self.agreement, self.teacher_accuracy]
        return found

    def reward(self, role: str, gold: Gold) -> Measure:
        return self.measure("reward", role, GoldReward(self.responses(role), gold), str(gold))

    def gold_accuracy(self, gold: Gold) -> Measure:
        """How often a gold agrees with human choices on the test part: the same for all seeds."""
        labels = GoldLabels(self.point.data.held_out.test, gold)
        return self.measure("gold_accuracy", "gold", Agreement(labels), str(gold))

    def start_rewards(self, roles: Iterable[str]) -> list[Measure]:
        """The gold rewards of students of these roles before their DPO, if there is a gold.
        Together with those after it they give the gold reward accuracy."""
        found: list[Measure] = []
        gold = self.point.data.gold
        if gold is None:
            return found
        for role in roles:
            policy = self.policy(role)
            if not isinstance(policy, Dpo):
                raise ValueError(f"a student in the role {role!r} learns by no DPO")
            step = GoldReward(self._responses_of(policy.start), gold)
            found.append(self.measure("start_reward", role, step, str(gold)))
        return found

    def accuracy(self, role: str) -> Measure:
        """How often a student's implicit reward agrees with human choices on the test part."""
        policy = self.policy(role)
        if not isinstance(policy, Dpo):
            raise ValueError(f"a student in the role {role!r} has no implicit reward")
        labels = WeakLabels(policy, self.point.data.held_out.test, self.dtype)
        return self.measure("accuracy", role, Agreement(labels))

    @property
    def agreement(self) -> Measure:
        gold = self.gold if self.point.data.gold else None
        return self.measure("agreement", "weak", Agreement(self.weak, gold))

    @property
    def teacher_accuracy(self) -> Measure:
        return self.measure("teacher_accuracy", "weak", self._agreement_on_test(self.point.data))

    def _agreement_on_test(self, data: Data) -> Agreement:
        """The teacher's agreement with humans on the test part of a domain."""
        known = GoldLabels(data.held_out.test, data.gold) if data.gold else None
        return Agreement(WeakLabels(self.teacher, data.held_out.test, self.dtype), known)

    def transfer(self, data: Data) -> Measure:
        """The teacher's accuracy on the test part of a domain that it has not learned."""
        measure = self.measure("transfer", "weak", self._agreement_on_test(data))
        teacher = f"{self.setting.teacher}, of {self.setting.domain}"
        setting = replace(self.setting, domain=data.name, teacher=teacher)
        return replace(measure, setting=setting)

    @property
    def reliability(self) -> Measure:
        """What temperature scaling does for the calibration error on the test part."""
        return self.measure("ece_gain", "weak", Reliability(self.tested, self.verdict))

    def alike(self, main: "Lab") -> Measure:
        """How often this teacher labels the test pairs as the one of ``main`` does."""
        return self.measure("alike", "weak", Alike(main.tested, self.tested))

    def measure(self, kind: str, role: str, step: Step, of: str = "") -> Measure:
        """A measure of this point by that step; see ``Measure``."""
        name, seed = type(step).__name__, self.point.seed
        return Measure(self.setting, seed, kind, role, of, name, step.fingerprint, step)

    @cached_property
    def setting(self) -> Setting:
        point = self.point
        dpo = point.dpo or point.usual_dpo
        return Setting(
            domain=point.data.name,
            weak=name_of(point.weak),
            teacher=f"{point.teacher}, {RETRAINED}" if point.retrained else point.teacher,
            student=name_of(point.student),
            fraction=str(point.fraction),
            beta=f"{dpo.beta:g}",
            sft="with SFT" if point.sft else "without SFT",
            recipe=changes_of(replace(dpo, beta=point.usual_dpo.beta), point.usual_dpo),
        )


@dataclass(frozen=True)
class Grid:
    """What sweeps go over, with names resolved to models, data and golds; ``weak`` are the models
    of ``ranges``.

    ``student`` and the first of ``weak`` are the main ones, which experiments use that vary
    something else. ``summaries`` is the second domain. ``families`` are students, and ``others``
    teachers, of other architectures. ``more_seeds`` are for the experiment over seeds alone.
    ``judge`` compares responses. ``embedding`` finds the model of sentence vectors, which only one
    experiment needs. ``first`` are the roles that the size grid compares. If there is a ``gate``,
    students learn only from teachers that are told from that accuracy.

    ``annotators`` make labels of a part in other ways than the teacher, by the role of the student
    that learns from them. Another one, such as a second prompt, touches four places: its step, its
    role in ``roles.ROLES``, its option in ``grids.Endpoint``, its entry in
    ``grids.find_annotators``.
    """

    preset: Preset
    ranges: Ranges
    data: Data
    summaries: Data | None
    weak: tuple[Policy, ...]
    student: Policy
    students: tuple[Policy, ...]
    families: tuple[Policy, ...]
    others: tuple[Policy, ...]
    more_seeds: tuple[int, ...]
    first: tuple[str, ...]
    annotators: Mapping[str, Annotator] = field(default_factory=dict)
    judge: Judge | None = None
    embedding: Callable[[], Model] | None = None
    gate: float | None = None

    @property
    def models(self) -> tuple[Policy, ...]:
        return (*self.weak, *self.others, self.student, *self.students, *self.families)

    @property
    def fractions(self) -> tuple[Fraction, ...]:
        return self.ranges.fractions

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.ranges.seeds

    @property
    def voters(self) -> tuple[Policy, ...]:
        """The models of all teachers."""
        return tuple(dict.fromkeys((*self.weak, *self.others)))

    def point(self, seed: int) -> Point:
        """The main point: main teacher and student, half of the pairs labeled (or the largest
        fraction that the grid goes over, where it leaves out the half)."""
        fraction = HALF if HALF in self.fractions else max(self.fractions)
        return Point(self.data, self.weak[0], self.student, fraction, seed)

    def lab(self, point: Point) -> Lab:
        preset = self.preset
        how = (preset.max_new_tokens, preset.dtype, self.annotators, preset.samples)
        return Lab(point, *how, self.gate, self.voters)

    @property
    def controls(self) -> tuple[str, ...]:
        """The control roles that can be had: gold labels need a gold."""
        return tuple(role for role in CONTROLS if role != "gold" or self.data.gold)
