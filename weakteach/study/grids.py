"""From what a user asked for to a grid: names resolved to models, data, golds and endpoints."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from weakteach.evaluation.gold import Gold, RewardModel, WorldGold
from weakteach.evaluation.judge import ChatJudge, Judge, RewardJudge
from weakteach.models.chat.endpoint import Chat
from weakteach.models.spec import find_model
from weakteach.preferences.pair import DataError
from weakteach.preferences.sources import Source, WorldSource, data_source
from weakteach.steps.data import HeldOut, Pairs, Policy
from weakteach.steps.judging import PromptedLabels
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import RewardHead
from weakteach.study.arms import Data, Grid, policy_of, tokenizers_of
from weakteach.study.presets import DataPreset, Preset, Ranges
from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import DOMAINS

TRAINED = "trained:"
# Of the golds that a study trains: they are the same for all of its seeds.
GOLD_SEED = 0

T = TypeVar("T")


@dataclass(frozen=True)
class Choices:
    """What the user chose for the grid; None leaves it to the preset."""

    weak: str | None = None
    student: str | None = None
    students: str | None = None
    fractions: str | None = None
    seeds: str | None = None
    betas: str | None = None
    data: str | None = None
    gold: str | None = None
    test_pairs: int | None = None
    set_aside_pairs: int | None = None
    endpoint: str | None = None
    annotator_model: str | None = None
    judge_model: str | None = None
    chat: dict[str, Any] = field(default_factory=dict)


def make_grid(preset: Preset, ranges: Ranges, choices: Choices, resolve: bool = True) -> Grid:
    """The grid of a preset over these ranges, but for what the user chose.

    With ``resolve`` False nothing is asked of the hub: enough to plan with. Raises DataError or
    ModelError for what cannot be found.
    """
    if choices.test_pairs is not None:
        preset = replace(preset, test_pairs=choices.test_pairs)
    if choices.set_aside_pairs is not None:
        preset = replace(preset, set_aside_pairs=choices.set_aside_pairs)
    fractions = listed(choices.fractions, Fraction, "--fractions") or ranges.fractions
    seeds = listed(choices.seeds, int, "--seeds") or ranges.seeds
    betas = listed(choices.betas, float, "--betas") or preset.betas
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise DataError(f"--fractions: {fraction} does not lie between 0 and 1")
    if any(seed < 0 for seed in seeds):
        raise DataError("--seeds: a seed is a whole number from 0 on")
    if any(beta <= 0 for beta in betas):
        raise DataError("--betas: a beta is above 0")
    given = choices.data or preset.data.data
    if given is None:
        raise DataError(
            f"The preset {preset.name} needs your pairs: give --data FILE (a .jsonl, .jsonl.gz, "
            ".csv or .parquet file)"
        )

    def models(names: tuple[str, ...]) -> tuple[Policy, ...]:
        return tuple(find_policy(name, preset, resolve) for name in names)

    weak = models(listed(choices.weak, str, "--weak") or ranges.weak)
    (student,) = models((choices.student or preset.student,))
    students = models(listed(choices.students, str, "--students") or preset.students)
    families, others = models(preset.families), models(preset.others)
    tokenizers = tokenizers_of(*weak, student, *students, *families, *others)

    def data(wanted: DataPreset, name: str, golds: tuple[str, ...]) -> Data:
        """Pairs short enough for every model, so the same in every arm and every sweep."""
        pairs = Pairs(find_source(name, resolve), tokenizers, preset.max_tokens)
        trained = any(gold.startswith(TRAINED) for gold in golds)
        held_out = HeldOut(pairs, preset.test_pairs, preset.set_aside_pairs if trained else 0)
        found = (find_gold(gold, name, held_out, wanted, preset, resolve) for gold in golds)
        return Data(
            name=pairs.source.name,
            held_out=held_out,
            golds=tuple(gold for gold in found if gold),
            teacher=wanted.teacher_recipes,
            student=wanted.student_recipes,
        )

    own = choices.data is None
    golds = listed(choices.gold, str, "--gold") or tuple(
        # Pairs that the user brings may be too few to set some aside for a gold.
        gold
        for gold in preset.data.golds
        if own or not gold.startswith(TRAINED)
    )
    main, summaries = data(preset.data, given, golds), None
    # The second domain is the preset's own: it does not go with pairs that the user brings.
    if preset.summaries and preset.summaries.data and own:
        summaries = data(preset.summaries, preset.summaries.data, preset.summaries.golds)
    return Grid(
        preset=preset,
        data=main,
        summaries=summaries,
        weak=weak,
        student=student,
        students=students,
        families=families,
        others=others,
        fractions=fractions,
        seeds=seeds,
        more_seeds=tuple(seed for seed in preset.more_seeds if seed not in seeds),
        betas=betas,
        annotator=find_annotator(choices),
        judge=find_judge(choices, main, preset),
        embedding=partial(find_model, preset.embedding, resolve) if preset.embedding else None,
    )


def find_policy(name: str, preset: Preset, resolve: bool = True) -> Policy:
    """The model of that name, or the step that makes it: a plain form of a GGUF, an embedded size
    that is not shipped. Raises ModelError."""
    return policy_of(find_model(name, resolve), preset.pretraining_documents)


def find_source(data: str, resolve: bool = True) -> Source:
    """The source that ``--data`` names. Raises DataError."""
    if (domain := domain_of(data)) is not None:
        count = data.partition(":")[2]
        if not count.isdigit() or int(count) < 2:
            raise DataError(
                f"--data {data}: write {domain.name}:<number of pairs>, such as {domain.name}:2048"
            )
        return WorldSource(int(count), domain=domain)
    return data_source(data, resolve=resolve)


def domain_of(data: str) -> Domain | None:
    """The embedded domain whose pairs ``--data`` asks for."""
    name, colon, _ = data.partition(":")
    return DOMAINS.get(name) if colon else None


def find_gold(
    name: str, data: str, held_out: HeldOut, wanted: DataPreset, preset: Preset, resolve: bool
) -> Gold | None:
    """The gold of that name: ``own`` (None where the data has none), an embedded domain, none, a
    model that the study trains, or a reward model. Raises DataError or ModelError."""
    domain = domain_of(data)
    if name == "none":
        return None
    if name == "own":
        return WorldGold(domain) if domain else None
    if name in DOMAINS:
        if domain is not DOMAINS[name]:
            raise DataError(f"--gold {name} scores the pairs of --data {name}:<pairs> alone")
        return WorldGold(DOMAINS[name])
    if name.startswith(TRAINED):
        model = name.removeprefix(TRAINED)
        if not preset.set_aside_pairs:
            raise DataError(f"--gold {name}: the preset {preset.name} sets no pairs aside for it")
        recipe = wanted.teacher_recipes(model).reward
        start = find_policy(model, preset, resolve)
        labels = HumanLabels(held_out.set_aside)
        return RewardModel(RewardHead(start, labels, recipe, GOLD_SEED))
    return RewardModel(find_policy(name, preset, resolve))


def find_annotator(choices: Choices) -> Callable[..., PromptedLabels] | None:
    """Makes labels of a part by the prompted model that the user named. Raises DataError."""
    if choices.annotator_model is None:
        return None
    return partial(PromptedLabels, _chat(choices, choices.annotator_model, "--annotator-model"))


def find_judge(choices: Choices, data: Data, preset: Preset) -> Judge | None:
    """The judge model that the user named; without one, draws from the last gold, which is not
    the main one where there are several. None without golds. Raises DataError."""
    if choices.judge_model is not None:
        chat = _chat(choices, choices.judge_model, "--judge-model")
        return ChatJudge(replace(chat, temperature=1.0))  # else repeated verdicts are all alike
    if not data.golds:
        return None
    return RewardJudge(data.golds[-1], preset.judge_temperature)


def _chat(choices: Choices, model: str, option: str) -> Chat:
    if not choices.endpoint:
        raise DataError(f"{option} {model} needs --endpoint URL, an OpenAI-compatible server")
    return Chat(model, base_url=choices.endpoint, **choices.chat)


def listed(text: str | None, kind: Callable[[str], T], option: str) -> tuple[T, ...]:
    """The items of a comma-separated list, each once. Raises DataError."""
    items = [item.strip() for item in (text or "").split(",") if item.strip()]
    try:
        values = [kind(item) for item in items]
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{option} {text}: {error}") from error
    return tuple(dict.fromkeys(values))
