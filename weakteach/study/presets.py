"""The same study at three scales. A preset is plain Python that returns the full recipe."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from weakteach.models.resources import Resources
from weakteach.models.spec import Model
from weakteach.training.recipes import DpoRecipe, Lora, Schedule, SftRecipe


@dataclass(frozen=True)
class Recipes:
    """How one model is aligned: SFT, then DPO."""

    sft: SftRecipe
    dpo: DpoRecipe


@dataclass(frozen=True)
class Scale:
    """What the plan's estimate of device-hours rests on, where nothing is measured yet."""

    train_pairs: int
    test_prompts: int
    prompt_tokens: int
    response_tokens: int
    device: str
    flops_per_second: float


@dataclass(frozen=True)
class Preset:
    """A study but for its grid. ``data`` is ``world:<pairs>``, ``posts:<pairs>``, a file, a
    folder or a hub id; ``gold`` is the name of a reward model, None for the data's own if any."""

    name: str
    data: str | None
    gold: str | None
    weak: tuple[str, ...]
    student: str
    fractions: tuple[Fraction, ...]
    seeds: tuple[int, ...]
    test_pairs: int
    max_new_tokens: int
    teacher_recipes: Callable[[Model], Recipes]
    student_recipes: Callable[[Model], Recipes]
    resources: Resources
    scale: Scale
    max_tokens: int = 512
    max_concurrent: int = 2


TINY_TEACHER_RATES = {"opt-45k": 1.2e-3, "opt-230k": 6e-4, "opt-1m": 3e-4, "opt-4m": 3e-4}
TINY_STUDENT_RATES = {"opt-45k": 3e-4, "opt-230k": 3e-4, "opt-1m": 1.5e-4, "opt-4m": 1.5e-4}


def tiny_teacher(model: Model) -> Recipes:
    """The teacher makes the same number of updates whatever the fraction (WLT, Fig. 4b)."""
    rate = TINY_TEACHER_RATES.get(model.label, 3e-4)
    return Recipes(
        SftRecipe(Schedule(rate, batch=16, steps=32)),
        DpoRecipe(Schedule(rate, batch=16, steps=96), beta=0.2, lora=None),
    )


def tiny_student(model: Model) -> Recipes:
    rate = TINY_STUDENT_RATES.get(model.label, 1.5e-4)
    return Recipes(
        SftRecipe(Schedule(2 * rate, batch=16)),
        DpoRecipe(Schedule(rate, batch=16), beta=0.4, lora=None),
    )


EMBEDDED = Preset(
    name="embedded",
    data="world:2048",
    gold=None,
    weak=("opt-45k", "opt-230k"),
    student="opt-230k",
    fractions=(Fraction(1, 8), Fraction(1, 2)),
    seeds=(0, 1),
    test_pairs=512,
    max_new_tokens=64,
    teacher_recipes=tiny_teacher,
    student_recipes=tiny_student,
    resources=Resources(),
    scale=Scale(1536, 500, 30, 20, "CPU core", 1.2e10),
)


def laptop_teacher(model: Model) -> Recipes:
    """Adapters for the real model, all parameters for the tiny family."""
    if model.label in TINY_TEACHER_RATES:
        return tiny_teacher(model)
    lora = Lora(rank=8, alpha=16)
    return Recipes(
        SftRecipe(Schedule(1e-4, batch=8, epochs=1), lora=lora),
        DpoRecipe(Schedule(3e-4, batch=8, epochs=1), beta=0.1, lora=lora),
    )


def laptop_student(model: Model) -> Recipes:
    return tiny_student(model) if model.label in TINY_STUDENT_RATES else laptop_teacher(model)


LAPTOP = replace(
    EMBEDDED,
    name="laptop",
    data=None,
    gold=None,
    weak=("opt-230k", "smollm2-135m"),
    fractions=(Fraction(1, 4), Fraction(1, 2)),
    test_pairs=300,
    max_new_tokens=128,
    teacher_recipes=laptop_teacher,
    student_recipes=laptop_student,
    resources=Resources(device_batch=4, batch_tokens=4096),
    scale=Scale(1000, 300, 125, 45, "CPU core", 2e10),
)


def paper_recipes(model: Model) -> Recipes:
    """WLT §4.1: SFT on all parameters, then DPO with LoRA of rank 8; alike for all models."""
    return Recipes(
        SftRecipe(Schedule(1e-5, batch=32)),
        DpoRecipe(Schedule(5e-5, batch=16), beta=0.1, lora=Lora(rank=8)),
    )


PAPER = Preset(
    name="paper",
    data="Dahoas/full-hh-rlhf",
    gold="Ray2333/reward-model-Mistral-7B-instruct-Unified-Feedback",
    weak=("facebook/opt-125m", "facebook/opt-1.3b", "meta-llama/Meta-Llama-3-8B"),
    student="facebook/opt-1.3b",
    fractions=(Fraction(1, 16), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2)),
    seeds=(22, 23, 24, 25, 26),
    test_pairs=11_000,
    max_new_tokens=256,
    teacher_recipes=paper_recipes,
    student_recipes=paper_recipes,
    resources=Resources(
        train_workers=4,
        label_actors=4,
        gpus=1,
        gpu_type="A100",
        cpus=4,
        threads=4,
        device_batch=4,
        batch_tokens=32_768,
        dtype="bfloat16",
    ),
    # 40 % of an A100's dense bfloat16 peak.
    scale=Scale(100_000, 11_000, 125, 60, "A100", 1.25e14),
    max_concurrent=8,
)

PRESETS = {preset.name: preset for preset in (EMBEDDED, LAPTOP, PAPER)}
