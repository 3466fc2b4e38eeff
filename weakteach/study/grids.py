"""From what a user asked for to a grid: names resolved to models, data, golds and endpoints."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal, TypeVar

from weakteach.evaluation.gold import Gold, RewardModel, WorldGold
from weakteach.evaluation.judge import ChatJudge, Judge, RewardJudge, Style
from weakteach.labeling.prompted import TextKind
from weakteach.models.chat.endpoint import Chat
from weakteach.models.spec import Dtype, RewardForm, find_model
from weakteach.preferences.pair import DataError
from weakteach.preferences.rows import AS_FOUND, Wishes
from weakteach.preferences.sources import Source, WorldSource, data_source
from weakteach.steps.data import HeldOut, Pairs, Policy
from weakteach.steps.judging import PromptedLabels
from weakteach.steps.labels import HumanLabels
from weakteach.steps.training import RewardHead
from weakteach.study.arms import Annotator, Grid
from weakteach.study.points import Data
from weakteach.study.policies import name_of, policy_of, refuse_namesakes, tokenizers_of
from weakteach.study.presets import DataPreset, Preset, Ranges, Recipes
from weakteach.study.roles import CONTROLS, FIRST
from weakteach.training.recipes import DpoRecipe, Lora, LoraBase, SftRecipe
from weakteach.worlds.domain import Domain
from weakteach.worlds.domains import DOMAINS
from weakteach.worlds.noise import BradleyTerry, Noise, UniformFlip

R = TypeVar("R", SftRecipe, DpoRecipe)
TRAINED = "trained:"
FORMS: dict[str, RewardForm] = {"text": "text", "chat": "chat", "pair": "pair"}
# What the size grid compares, by --controls.
FIRST_ROLES = {
    "main": FIRST,
    "both": (*FIRST, "gold", "human_all"),
    "all": (*CONTROLS, "few_long", "both"),
}
# The seed of the golds that a study trains, which are the same for all seeds of the study.
GOLD_SEED = 0


@dataclass(frozen=True)
class Choices(Ranges):
    """What the user chose for the grid; what is empty or None is left to the preset.

    Every field is an option of every sweep, with its docstring as help.
    """

    student: str | None = None
    """Student of experiments over something else."""
    students: tuple[str, ...] = ()
    """Students of experiments over students."""
    data: str | None = None
    """Preference pairs: world:<pairs> or posts:<pairs> of the embedded domains, a file of JSON,
    JSONL, CSV, TSV or Parquet, several as a pattern, a folder, or a hub id#config:split. After
    world:<pairs> may stand :flips=RATE or :temperature=T, the noise of its human choices."""
    columns: tuple[str, ...] = ()
    """Names for columns of --data, such as prompt=question,chosen=better."""
    choice_values: tuple[str, ...] = ()
    """What stands in --data for a choice of the first and of the second response, such as A,B."""
    gold: tuple[str, ...] = ()
    """Gold rewards, the main one first: own (an embedded domain's), reward models, trained:<model>
    (trained on pairs set aside), or none. Trained ones are left out of the default for your own
    --data."""
    test_pairs: int | None = None
    """Pairs held out as the test part."""
    set_aside_pairs: int | None = None
    """Pairs that golds trained:... learn from."""
    max_tokens: int | None = None
    """Longer pairs go to quarantine; every model must be able to read as many."""
    samples: int | None = None
    """Responses to each test prompt, whose mean is the prompt's outcome."""
    dtype: Dtype | None = None
    """Of computations with models; weights are trained in float32 in any case."""
    sft_lora: int | None = None
    """Rank of adapters (LoRA) that SFT trains, in place of all weights or of the preset's."""
    lora_base: LoraBase = "whole"
    """What adapters are trained over: the whole base in the dtype, or nf4, a base in 4 bits
    (bitsandbytes, on CUDA). All that reads them does so over the whole one."""
    controls: Literal["main", "both", "all"] = "main"
    """What the size grid compares weak labels with: main (the student before alignment, human
    labels, and those of the labeled part with and without weak labels of the rest), both (gold
    labels and human labels of all pairs, too) or all controls. Other sweeps have all."""

    gate: float | None = None
    """Judge each teacher on its labeled pairs before it labels. If its accuracy is not told from
    this one, such as 0.5, what needs its labels ends with that reason; students of human labels go
    on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("test_pairs", "set_aside_pairs"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise DataError(f"--{name.replace('_', '-')}: {value} is too few, at least 2")
        if self.max_tokens is not None and self.max_tokens < 8:
            raise DataError(f"--max-tokens: {self.max_tokens} is too few, at least 8")
        if self.sft_lora is not None and self.sft_lora < 1:
            raise DataError(f"--sft-lora: a rank of {self.sft_lora} trains nothing, at least 1")
        if self.samples is not None and self.samples < 1:
            raise DataError(f"--samples: {self.samples} is too few, at least 1")
        if self.gate is not None and not 0 < self.gate < 1:
            raise DataError(f"--gate: {self.gate} is no accuracy between 0 and 1, such as 0.5")


@dataclass(frozen=True)
class Endpoint:
    """Prompted models behind an OpenAI-compatible server, and how they are asked.

    Every field is an option of every sweep, with its docstring as help.
    """

    endpoint: str = ""
    """URL of an OpenAI-compatible server, such as http://localhost:8000/v1."""
    annotator_model: str | None = None
    """Model of the endpoint that labels pairs."""
    annotator_prompt: TextKind = "dialogue"
    """What the annotator is told that it compares."""
    judge_model: str | None = None
    """Model of the endpoint that judges; without it a gold draws."""
    judge_style: Style = "scores"
    """Whether the judge grades both replies, or names the better one."""
    endpoint_key: str = Chat.key_variable
    """Environment variable that holds the endpoint's key."""
    endpoint_concurrency: int = Chat.concurrency
    """Requests under way at a time, for each arm."""
    endpoint_rate: float | None = Chat.requests_per_minute
    """Most requests a minute, for each arm."""
    endpoint_timeout: float = Chat.timeout
    """Seconds until a request counts as lost."""
    endpoint_retries: int = Chat.retries
    """How often a request that failed is sent again."""
    endpoint_input_price: float = Chat.input_price
    """Price of a million input tokens."""
    endpoint_output_price: float = Chat.output_price
    """Price of a million output tokens, in the same currency."""
    endpoint_cap: float | None = Chat.max_cost
    """Most that the requests of one step may cost; needs the prices."""
    endpoint_without_logprobs: bool = not Chat.logprobs
    """Do not ask for log-probabilities of answers, which some servers refuse."""

    def chat(self, model: str, option: str) -> Chat:
        """The chat model of that name, which ``option`` asks for. Raises DataError without a URL,
        and ChatError for settings that cannot be used."""
        if not self.endpoint:
            raise DataError(f"{option} {model} needs --endpoint URL, an OpenAI-compatible server")
        return Chat(
            model,
            logprobs=not self.endpoint_without_logprobs,
            base_url=self.endpoint,
            key_variable=self.endpoint_key,
            concurrency=self.endpoint_concurrency,
            requests_per_minute=self.endpoint_rate,
            timeout=self.endpoint_timeout,
            retries=self.endpoint_retries,
            input_price=self.endpoint_input_price,
            output_price=self.endpoint_output_price,
            max_cost=self.endpoint_cap,
        )


def make_grid(
    preset: Preset,
    ranges: Ranges,
    choices: Choices,
    endpoint: Endpoint | None = None,
    resolve: bool = True,
) -> Grid:
    """The grid of a preset over these ranges, except for what the user chose.

    With ``resolve`` False the hub is asked nothing, which is enough to plan with. Raises DataError
    or ModelError for what cannot be found.
    """
    endpoint = endpoint or Endpoint()
    if choices.test_pairs is not None:
        preset = replace(preset, test_pairs=choices.test_pairs)
    if choices.set_aside_pairs is not None:
        preset = replace(preset, set_aside_pairs=choices.set_aside_pairs)
    if choices.max_tokens is not None:
        preset = replace(preset, max_tokens=choices.max_tokens)
    if choices.samples is not None:
        preset = replace(preset, samples=choices.samples)
    if choices.dtype is not None:
        preset = replace(preset, dtype=choices.dtype)
    chosen = {axis.name: getattr(choices, axis.name) for axis in fields(Ranges)}
    ranges = replace(ranges, **{name: values for name, values in chosen.items() if values})
    given = choices.data or preset.data.data
    if given is None:
        raise DataError(
            f"The preset {preset.name} needs your pairs: give --data FILE (a .jsonl, .jsonl.gz, "
            ".csv or .parquet file)"
        )

    wishes = Wishes.of(choices.columns, choices.choice_values)

    def models(names: tuple[str, ...]) -> tuple[Policy, ...]:
        return tuple(find_policy(name, preset, resolve) for name in names)

    weak = models(ranges.weak)
    (student,) = models((choices.student or preset.student,))
    students = models(choices.students or preset.students)
    families, others = models(preset.families), models(preset.others)
    every = (*weak, *others, student, *students, *families)
    refuse_namesakes(every)
    tokenizers = tokenizers_of(*every)

    def data(wanted: DataPreset, name: str, golds: tuple[str, ...]) -> Data:
        """The data of a domain. Its pairs are short enough for every model, so they are the same in
        every arm and every sweep."""
        pairs = Pairs(find_source(name, resolve, wishes), tokenizers, preset.max_tokens)
        trained = any(gold.startswith(TRAINED) for gold in golds)
        held_out = HeldOut(pairs, preset.test_pairs, preset.set_aside_pairs if trained else 0)
        found = [find_gold(gold, name, held_out, wanted, preset, resolve) for gold in golds]
        named = Counter(str(gold) for gold in found if gold)
        if twice := [of for of, times in named.items() if times > 1]:
            raise DataError(
                f"--gold: {twice[0]} is there twice, and results tell golds apart by their names: "
                "give one of them"
            )
        return Data(
            name=domain_name(pairs.source),
            held_out=held_out,
            golds=tuple(gold for gold in found if gold),
            teacher=with_adapters(wanted.teacher_recipes, choices.sft_lora, choices.lora_base),
            student=with_adapters(wanted.student_recipes, choices.sft_lora, choices.lora_base),
        )

    own = choices.data is None
    golds = choices.gold or tuple(
        # Pairs that the user brings may be too few to set some aside for a gold.
        gold
        for gold in preset.data.golds
        if own or not gold.startswith(TRAINED)
    )
    main, summaries = data(preset.data, given, golds), None
    if choices.lora_base != "whole":
        trained = [main.student(name_of(one)) for one in (student, *students, *families)]
        trained += [main.teacher(name_of(one)) for one in (*weak, *others)]
        if not any(of.sft.lora or of.dpo.lora for of in trained):
            raise DataError(
                f"--lora-base {choices.lora_base}: no model of the preset {preset.name} is trained "
                "by adapters: give --sft-lora RANK, or another --preset"
            )
    # The second domain is the preset's own: it does not go with pairs that the user brings.
    if preset.summaries and preset.summaries.data and own:
        summaries = data(preset.summaries, preset.summaries.data, preset.summaries.golds)
    return Grid(
        preset=preset,
        ranges=ranges,
        data=main,
        summaries=summaries,
        weak=weak,
        student=student,
        students=students,
        families=families,
        others=others,
        more_seeds=tuple(seed for seed in preset.more_seeds if seed not in ranges.seeds),
        annotators=find_annotators(endpoint),
        judge=find_judge(endpoint, main, preset),
        embedding=partial(find_model, preset.embedding, resolve) if preset.embedding else None,
        first=FIRST_ROLES[choices.controls],
        gate=choices.gate,
    )


def with_adapters(
    recipes: Callable[[str], Recipes], rank: int | None, base: LoraBase = "whole"
) -> Callable[[str], Recipes]:
    """The same recipes, except that SFT trains adapters of that ``rank``, if one is given, with an
    alpha of twice the rank, and that the adapters of SFT and DPO are trained over that ``base``."""

    def adapted(name: str) -> Recipes:
        of_model = recipes(name)
        sft, dpo = of_model.sft, of_model.dpo
        if rank is not None:
            sft = replace(sft, lora=Lora(rank, alpha=2 * rank))
        return replace(of_model, sft=_over(sft, base), dpo=_over(dpo, base))

    return adapted


def _over(recipe: R, base: LoraBase) -> R:
    return replace(recipe, lora=replace(recipe.lora, base=base)) if recipe.lora else recipe


def domain_name(source: Source) -> str:
    """What arms and reports call the pairs of a source."""
    if isinstance(source, WorldSource):
        return f"embedded {source.domain.name}"
    return source.name


def find_policy(name: str, preset: Preset, resolve: bool = True) -> Policy:
    """The model of that name, or the step that makes it: by converting a GGUF or pickled weights,
    or by pretraining an embedded size that is not shipped. Raises ModelError."""
    return policy_of(find_model(name, resolve), preset.pretraining_documents)


def find_source(data: str, resolve: bool = True, wishes: Wishes = AS_FOUND) -> Source:
    """The source that ``--data`` names, read as ``wishes`` say. Raises DataError."""
    if (domain := domain_of(data)) is not None:
        return world_source(data, domain)
    return data_source(data, wishes, resolve)


def world_source(data: str, domain: Domain) -> WorldSource:
    """``<domain>:<pairs>``, which may be followed by the noise of its human choices, such as
    ``:flips=0.2`` (UniformFlip) or ``:temperature=0.74`` (BradleyTerry). Raises DataError."""
    _, count, *more = data.split(":")
    if not (count.isascii() and count.isdigit()) or int(count) < 2:
        raise DataError(
            f"--data {data}: write {domain.name}:<number of pairs>, such as {domain.name}:2048"
        )
    if not more:
        return WorldSource(int(count), domain=domain)
    kinds: dict[str, Callable[[float], Noise]] = {"flips": UniformFlip, "temperature": BradleyTerry}
    name, _, value = ":".join(more).partition("=")
    try:
        noise = kinds[name](float(value))
    except (LookupError, ValueError) as error:
        raise DataError(
            f"--data {data}: the noise is flips=RATE, a share up to 0.5, or temperature=T, above "
            f"0, such as {domain.name}:{count}:flips=0.2"
        ) from error
    return WorldSource(int(count), noise=noise, domain=domain)


def domain_of(data: str) -> Domain | None:
    """The embedded domain whose pairs ``--data`` asks for; None if it asks for other data."""
    name, colon, _ = data.partition(":")
    return DOMAINS.get(name) if colon else None


def find_gold(
    name: str, data: str, held_out: HeldOut, wanted: DataPreset, preset: Preset, resolve: bool
) -> Gold | None:
    """The gold of that name: ``none`` (None), ``own`` (None for data that has no gold of its own),
    an embedded domain, a model that the study trains, or a reward model, which reads prompt and
    response as one text unless ``chat:`` or ``pair:`` before its name says otherwise. Raises
    DataError or ModelError."""
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
        dtype = preset.dtype
        head = RewardHead(start, labels, recipe, GOLD_SEED, dtype=dtype, saved=dtype)
        return RewardModel(head, dtype)
    form, colon, model = name.partition(":")
    if colon and form in FORMS:
        return RewardModel(find_policy(model, preset, resolve), preset.dtype, FORMS[form])
    return RewardModel(find_policy(name, preset, resolve), preset.dtype)


def find_annotators(endpoint: Endpoint) -> dict[str, Annotator]:
    """The annotators that the user named, by the role of the student that learns from their labels.
    Raises DataError if one is named without an endpoint."""
    if endpoint.annotator_model is None:
        return {}
    chat = endpoint.chat(endpoint.annotator_model, "--annotator-model")
    return {"prompted": partial(PromptedLabels, chat, domain=endpoint.annotator_prompt)}


def find_judge(endpoint: Endpoint, data: Data, preset: Preset) -> Judge | None:
    """The judge model that the user named or, without one, a judge that draws from the last gold,
    which is not the main one if there are several; None without golds. Raises DataError if a judge
    model is named without an endpoint."""
    if endpoint.judge_model is not None:
        chat = endpoint.chat(endpoint.judge_model, "--judge-model")
        chat = replace(chat, temperature=1.0)  # else repeated verdicts are all alike
        return ChatJudge(chat, endpoint.judge_style)
    if not data.golds:
        return None
    return RewardJudge(data.golds[-1], preset.judge_temperature)
