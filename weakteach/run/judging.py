"""How ``weakteach label`` judges its teacher: the steps of its verdict, and models to try next."""

from collections.abc import Sequence
from fractions import Fraction

from weakteach.models.spec import Dtype, Model
from weakteach.run.options import Judging
from weakteach.steps.data import Pairs
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, dpo_from, sft_before
from weakteach.steps.verdict import CrossFitted, Folds, Training, Verdict, cross_fitted
from weakteach.study.policies import policy_of
from weakteach.study.presets import LAPTOP, Preset

# Models that can be had without a hub, the smallest first.
LADDER = ("opt-45k", "opt-230k", "opt-1m", "smollm2-135m")


def training_of(preset: Preset, model: Model, seed: int, dtype: Dtype) -> Training:
    """How the model becomes a teacher that learns from human labels: by SFT, then DPO."""
    recipes = preset.data.teacher_recipes(str(model))
    documents = preset.pretraining_documents or LAPTOP.pretraining_documents
    start = policy_of(model, documents)

    def train(labels: HumanLabels) -> Dpo:
        sft = sft_before(recipes.dpo, start, labels, recipes.sft, seed, dtype)
        return dpo_from(sft, labels, recipes.dpo, seed, dtype)

    return train


def verdict_of(
    preset: Preset,
    judging: Judging,
    few: Pairs,
    model: Model,
    rivals: Sequence[Model],
    elsewhere: Pairs | None,
    seed: int,
    dtype: Dtype,
) -> Verdict:
    """The verdict on the model as a teacher that learns from the pairs ``few``, with all that the
    user asks for."""
    folds = Folds(few.all, max(2, round(1 / judging.held_out)), judging.rounds, seed)

    def fitted(of: Model, its_seed: int, shares: Sequence[Fraction] = ()) -> CrossFitted:
        train = training_of(preset, of, its_seed, dtype)
        return cross_fitted(str(of), its_seed, folds, train, shares)

    others = [fitted(model, seed + n) for n in range(1, judging.other_seeds + 1)]
    teacher = training_of(preset, model, seed, dtype)(HumanLabels(few.all))
    return Verdict(
        folds,
        fitted(model, seed, judging.shares),
        rivals=(*others, *(fitted(rival, seed) for rival in rivals)),
        elsewhere=(WeakLabels(teacher, elsewhere.all, dtype),) if elsewhere else (),
        wanted=judging.wanted_accuracy,
    )


def larger_than(model: Model) -> tuple[str, ...]:
    """Larger models to try in place of the model, the smallest of them first."""
    return LADDER[LADDER.index(str(model)) + 1 :] if str(model) in LADDER else ()
