"""The same study at four scales. A preset is plain Python that returns the full recipe."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from weakteach.artifacts.errors import UserError
from weakteach.models.resources import Resources
from weakteach.models.spec import Dtype
from weakteach.training.recipes import DpoRecipe, Lora, RewardRecipe, Schedule, SftRecipe


@dataclass(frozen=True)
class Recipes:
    """How one model is aligned, by SFT and then DPO, and how it is trained as a reward model."""

    sft: SftRecipe
    dpo: DpoRecipe
    reward: RewardRecipe


@dataclass(frozen=True)
class Scale:
    """What the plan's estimate of device-hours rests on, where nothing is measured yet.
    ``decode_rows`` responses are generated together; one more token of each costs every layer
    ``decode_layer_seconds``, however small the layer: the time that a host takes to call it.
    ``pairs`` are the numbers of pairs that are known, by the fingerprint of the step that holds
    them; ``train_pairs`` those of the training part where they are not."""

    train_pairs: int
    prompt_tokens: int
    response_tokens: int
    device: str
    flops_per_second: float
    decode_rows: int
    decode_layer_seconds: float
    pairs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataPreset:
    """Pairs, and the golds and recipes that suit them. ``data`` is ``world:<pairs>``,
    ``posts:<pairs>``, a file, a folder or a hub id; None if the user must give it. Each of
    ``golds``, the main one first, is ``own`` (the exact one of an embedded domain), the name of a
    reward model, with ``chat:`` or ``pair:`` before it if it reads that form, or
    ``trained:<model>``, a reward model that the study trains on pairs set aside."""

    data: str | None
    golds: tuple[str, ...]
    teacher_recipes: Callable[[str], Recipes]
    student_recipes: Callable[[str], Recipes]


@dataclass(frozen=True)
class Ranges:
    """The values that sweeps go over. A range that the user left empty is that of the preset.

    Every field is an option of every sweep, with its docstring as help. To let sweeps go over
    another value of the students' recipe, such as the rank of LoRA, touch three places:

    1. here: add a field (``lora_ranks``), refuse wrong values below, and give each preset its
       range;
    2. ``experiments.py``: add an experiment whose points are ``grid.point(seed).with_dpo(lora=…)``
       for each of ``grid.ranges.lora_ranks`` and whose axis is ``recipe``;
    3. ``sweeps/``: add a script that runs it.

    Names of arms, columns of results, tables and figures follow from the recipe itself.
    """

    weak: tuple[str, ...] = ()
    """Teacher models, separated by commas; the first is the main one."""
    fractions: tuple[Fraction, ...] = ()
    """Labeled fractions, such as 1/16,1/2."""
    seeds: tuple[int, ...] = ()
    """Seeds, such as 0,1,2."""
    betas: tuple[float, ...] = ()
    """Betas of the students' DPO, such as 0.1,0.4."""

    def __post_init__(self) -> None:
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise UserError(f"--fractions: {fraction} does not lie between 0 and 1")
        if any(seed < 0 for seed in self.seeds):
            raise UserError("--seeds: a seed is a whole number from 0 on")
        if not all(0 < beta < math.inf for beta in self.betas):
            raise UserError("--betas: a beta is a number above 0")


@dataclass(frozen=True)
class Preset:
    """All of a study except its question.

    ``first`` are the ranges of the size grid, the first sweep that anyone runs; ``ranges`` are
    those of all other sweeps. ``families`` are students, and ``others`` teachers, of other
    architectures. ``set_aside_pairs`` pairs train the golds of the study. A judge compares
    ``judged_prompts`` prompts, or pairs, and repeats a verdict ``judge_repeats`` times where
    repeats are asked for; ``judge_temperature`` is that of the gold that judges if no judge model
    is given. ``embedding`` names the model behind similarities of responses, None for none.
    ``dtype`` is that of all computation with models. ``samples`` is the number of responses to a
    prompt, whose mean is the prompt's outcome.
    """

    name: str
    data: DataPreset
    summaries: DataPreset | None
    first: Ranges
    ranges: Ranges
    student: str
    students: tuple[str, ...]
    families: tuple[str, ...]
    others: tuple[str, ...]
    more_seeds: tuple[int, ...]
    test_pairs: int
    set_aside_pairs: int
    judged_prompts: int
    judge_repeats: int
    judge_temperature: float
    embedding: str | None
    max_new_tokens: int
    pretraining_documents: int
    resources: Resources
    scale: Scale
    dtype: Dtype = "float32"
    max_tokens: int = 512
    samples: int = 1


# Learning rates by the size in a model's name, whatever its family.
TEACHER_RATES = {"45k": 1.2e-3, "230k": 6e-4, "1m": 3e-4, "4m": 3e-4}
STUDENT_RATES = {"45k": 3e-4, "230k": 3e-4, "1m": 1.5e-4, "4m": 1.5e-4}


def tiny_teacher(name: str) -> Recipes:
    """The teacher makes the same number of updates whatever the fraction (WLT, Fig. 4b)."""
    rate = TEACHER_RATES.get(_size(name), 3e-4)
    return Recipes(
        SftRecipe(Schedule(rate, batch=16, steps=32)),
        DpoRecipe(Schedule(rate, batch=16, steps=96), beta=0.2, lora=None),
        RewardRecipe(Schedule(rate, batch=16, steps=32 + 96)),
    )


def tiny_student(name: str) -> Recipes:
    rate = STUDENT_RATES.get(_size(name), 1.5e-4)
    return Recipes(
        SftRecipe(Schedule(2 * rate, batch=16)),
        DpoRecipe(Schedule(rate, batch=16), beta=0.4, lora=None),
        RewardRecipe(Schedule(rate, batch=16)),
    )


def _size(name: str) -> str:
    return name.rpartition("-")[2]


ALL_FRACTIONS = (Fraction(1, 16), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2))
EMBEDDED_BETAS = (0.2, 0.4, 0.8, 1.2, 2.0)
PAPER_BETAS = (0.05, 0.1, 0.2, 0.3, 0.5)

EMBEDDED = Preset(
    name="embedded",
    data=DataPreset(
        "world:2560", ("own", "trained:opt-230k", "trained:opt-1m"), tiny_teacher, tiny_student
    ),
    summaries=DataPreset("posts:2560", ("own",), tiny_teacher, tiny_student),
    # One teacher at 4 seeds takes as long as two teachers at 2.5 seeds, and tells more apart.
    first=Ranges(("opt-45k",), (Fraction(1, 8), Fraction(1, 2)), (0, 1, 2, 3), EMBEDDED_BETAS),
    ranges=Ranges(("opt-45k", "opt-230k", "opt-1m"), ALL_FRACTIONS, (0, 1, 2), EMBEDDED_BETAS),
    student="opt-230k",
    students=("opt-45k", "opt-230k", "opt-1m"),
    families=("llama-230k", "mistral-230k", "gemma-230k"),
    others=("pythia-230k", "gpt-neo-230k"),
    more_seeds=(3, 4),
    test_pairs=512,
    set_aside_pairs=512,
    judged_prompts=100,
    judge_repeats=10,
    judge_temperature=1.0,
    embedding="all-minilm-l6-v2",
    max_new_tokens=64,
    pretraining_documents=16_384,
    resources=Resources(),
    scale=Scale(1536, 30, 20, "CPU core", 1.2e10, 80, 3e-4),
    samples=4,
)


def laptop_teacher(name: str) -> Recipes:
    """Adapters for a real model, all parameters for the embedded sizes."""
    if _size(name) in TEACHER_RATES:
        return tiny_teacher(name)
    lora = Lora(rank=8, alpha=16)
    return Recipes(
        SftRecipe(Schedule(1e-4, batch=8, epochs=1), lora=lora),
        DpoRecipe(Schedule(3e-4, batch=8, epochs=1), beta=0.1, lora=lora),
        RewardRecipe(Schedule(3e-4, batch=8, epochs=2), lora=lora),
    )


def laptop_student(name: str) -> Recipes:
    return tiny_student(name) if _size(name) in STUDENT_RATES else laptop_teacher(name)


LAPTOP = replace(
    EMBEDDED,
    name="laptop",
    data=DataPreset(None, (), laptop_teacher, laptop_student),
    summaries=None,
    first=Ranges(
        ("opt-230k", "smollm2-135m"), (Fraction(1, 4), Fraction(1, 2)), (0, 1), EMBEDDED_BETAS
    ),
    ranges=Ranges(
        ("opt-230k", "smollm2-135m"), (Fraction(1, 4), Fraction(1, 2)), (0, 1, 2), EMBEDDED_BETAS
    ),
    families=(),
    others=(),
    test_pairs=300,
    set_aside_pairs=200,
    max_new_tokens=128,
    resources=Resources(train_tokens=2048, batch_tokens=4096),
    scale=Scale(1000, 125, 45, "CPU core", 2e10, 12, 3e-4),
    samples=1,
)


def paper_recipes(name: str) -> Recipes:
    """WLT §4.1: SFT on all parameters, then DPO with LoRA of rank 8; alike for all models. A reward
    head is trained like the SFT, for as many epochs as SFT and DPO together."""
    return Recipes(
        SftRecipe(Schedule(1e-5, batch=32)),
        DpoRecipe(Schedule(5e-5, batch=16), beta=0.1, lora=Lora(rank=8)),
        RewardRecipe(Schedule(1e-5, batch=32, epochs=2)),
    )


def paper_summary_recipes(name: str) -> Recipes:
    """WLT §4.1 for TL;DR: a lower rate and a larger beta in DPO."""
    recipes = paper_recipes(name)
    dpo = DpoRecipe(Schedule(5e-6, batch=16), beta=0.5, lora=Lora(rank=8))
    return replace(recipes, dpo=dpo)


PAPER = Preset(
    name="paper",
    data=DataPreset(
        "Dahoas/full-hh-rlhf",
        (
            "chat:Ray2333/reward-model-Mistral-7B-instruct-Unified-Feedback",
            "pair:OpenAssistant/reward-model-deberta-v3-large-v2",
            "chat:weqweasdas/RM-Mistral-7B",
        ),
        paper_recipes,
        paper_recipes,
    ),
    summaries=DataPreset(
        "CarperAI/openai_summarize_comparisons",
        ("pair:OpenAssistant/reward-model-deberta-v3-large-v2",),
        paper_summary_recipes,
        paper_summary_recipes,
    ),
    first=Ranges(
        ("facebook/opt-125m", "facebook/opt-1.3b", "meta-llama/Meta-Llama-3-8B"),
        ALL_FRACTIONS,
        (22, 23, 24, 25, 26),
        PAPER_BETAS,
    ),
    ranges=Ranges(
        ("facebook/opt-125m", "facebook/opt-1.3b", "meta-llama/Meta-Llama-3-8B"),
        ALL_FRACTIONS,
        (22, 23, 24),
        PAPER_BETAS,
    ),
    student="facebook/opt-1.3b",
    students=("facebook/opt-1.3b", "facebook/opt-2.7b", "facebook/opt-6.7b", "facebook/opt-13b"),
    families=("mistralai/Mistral-7B-v0.1", "meta-llama/Llama-2-7b-hf", "google/gemma-7b"),
    others=("EleutherAI/gpt-neo-125m", "EleutherAI/pythia-160m"),
    more_seeds=(25, 26),
    # All 11,000 would narrow the interval from prompts from 0.022 to 0.010 sd; seeds gain more.
    test_pairs=2_000,
    set_aside_pairs=0,
    judged_prompts=100,
    judge_repeats=10,
    judge_temperature=1.0,
    embedding="sentence-transformers/all-MiniLM-L6-v2",
    max_new_tokens=256,
    pretraining_documents=0,
    resources=Resources(
        # Sending a 1.3B model's gradients between nodes, at 24 Gb/s, takes 28 times its compute.
        train_workers=1,
        # SFT of all weights of OPT-13B takes 31 GiB of each of 8 A100s checkpointed, and slightly
        # more than they have if not; of each of 4 it takes 58 checkpointed.
        train_workers_max=8,
        label_actors=1,
        label_actors_max=4,
        gpus=1,
        gpu_type="A100",
        cpus=4,
        threads=4,
        train_tokens=4096,
        batch_tokens=32_768,
    ),
    dtype="bfloat16",
    # 40 % of an A100's dense bfloat16 peak; 20 ms for a token of a model of 24 layers.
    scale=Scale(100_000, 125, 60, "A100", 1.25e14, 64, 8e-4),
)


def modern_recipes(name: str) -> Recipes:
    """Adapters throughout, so that a model of 8B fits one GPU of 80 GB; alike for all models."""
    lora = Lora(rank=16, alpha=32)
    return Recipes(
        SftRecipe(Schedule(1e-4, batch=32, scheduler="cosine", warmup=0.1), lora=lora),
        DpoRecipe(Schedule(5e-5, batch=32, scheduler="cosine", warmup=0.1), beta=0.1, lora=lora),
        RewardRecipe(Schedule(1e-4, batch=32, epochs=1), lora=lora),
    )


MODERN = Preset(
    name="modern",
    data=DataPreset(
        "trl-lib/ultrafeedback_binarized",
        (
            "chat:Skywork/Skywork-Reward-V2-Llama-3.1-8B",
            "chat:Skywork/Skywork-Reward-V2-Qwen3-0.6B",
        ),
        modern_recipes,
        modern_recipes,
    ),
    summaries=None,
    first=Ranges(
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-0.6B"),
        (Fraction(1, 8), Fraction(1, 2)),
        (0, 1),
        PAPER_BETAS,
    ),
    ranges=Ranges(
        (
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "Qwen/Qwen3-0.6B",
            "meta-llama/Llama-3.2-1B-Instruct",
        ),
        ALL_FRACTIONS,
        (0, 1, 2),
        PAPER_BETAS,
    ),
    student="Qwen/Qwen3-1.7B",
    students=("Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B"),
    families=("meta-llama/Llama-3.2-3B-Instruct", "HuggingFaceTB/SmolLM3-3B"),
    others=("HuggingFaceTB/SmolLM2-360M-Instruct", "google/gemma-3-270m-it"),
    more_seeds=(3, 4),
    test_pairs=1_000,
    set_aside_pairs=0,
    judged_prompts=100,
    judge_repeats=10,
    judge_temperature=1.0,
    embedding="sentence-transformers/all-MiniLM-L6-v2",
    max_new_tokens=512,
    pretraining_documents=0,
    resources=Resources(
        train_workers=1,
        label_actors=1,
        gpus=1,
        cpus=4,
        threads=4,
        train_tokens=4096,
        batch_tokens=32_768,
    ),
    dtype="bfloat16",
    # As above.
    scale=Scale(60_000, 180, 320, "A100", 1.25e14, 36, 8e-4),
    max_tokens=1024,
)

PRESETS = {preset.name: preset for preset in (EMBEDDED, LAPTOP, PAPER, MODERN)}
