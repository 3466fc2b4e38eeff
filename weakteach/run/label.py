"""``weakteach label``: labels of a user's own pairs by a teacher of a few human choices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Console

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import Dtype, find_model
from weakteach.preferences.pair import DataError
from weakteach.preferences.sources import file_source
from weakteach.run.address import ray_address
from weakteach.run.export import export
from weakteach.run.options import (
    DEFAULT_STORAGE,
    Cluster,
    ClusterOptions,
    ExecutionOptions,
    PresetName,
    Storage,
    Verbose,
    resources_of,
)
from weakteach.run.terminal import following, terminal
from weakteach.steps.data import HeldOut, Pairs
from weakteach.steps.evaluation import Agreement
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, Sft
from weakteach.study.policies import policy_of, tokenizers_of
from weakteach.study.presets import LAPTOP, PRESETS, Preset

LARGEST_HELD_OUT = 500


@dataclass(frozen=True)
class LabelOptions:
    """What is labeled, and by whom."""

    labeled: Path
    """Pairs with human choices; teaches the teacher."""
    unlabeled: Path
    """Pairs to label."""
    out: Path
    """Folder for labels, preferences and quarantine."""
    teacher: str = "opt-230k"
    """Embedded model, smollm2-135m, a folder, .gguf file or hub id."""
    preset: PresetName = LAPTOP.name
    """Whose recipes of teachers, and whose resources unless you give others."""
    storage: Storage = DEFAULT_STORAGE
    """Where artifacts lie: a folder or a URL. What lies there is not computed again."""
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0
    """Of the split, of training and of all that is drawn."""
    max_tokens: Annotated[int, Parameter(validator=validators.Number(gte=8))] = 512
    """Longer pairs go to quarantine."""
    held_out: Annotated[float, Parameter(validator=validators.Number(gte=0.01, lte=0.9))] = 0.2
    """Share of labeled pairs that test the teacher."""
    dtype: Dtype | None = None
    """Of computations with models, that of the preset without; trained weights stay in float32."""


def label(
    *,
    options: Annotated[LabelOptions, Parameter(name="*")],
    execution: ExecutionOptions = None,
    cluster: ClusterOptions = Cluster(),  # noqa: B008, a frozen value
    verbose: Verbose = False,
) -> None:
    """Label pairs with a teacher trained on a few human choices.

    Files are .jsonl, .jsonl.gz, .csv or .parquet. Labeled rows hold prompt, chosen
    and rejected (or chosen and rejected transcripts alone, or lists of messages);
    unlabeled rows may hold prompt, response_1 and response_2 instead. Human choices
    in the unlabeled file are never shown to the teacher; they give the printed
    agreement alone.

    Parameters
    ----------
    verbose
        Show logs and tracebacks.
    """
    preset = PRESETS[options.preset]
    resources = resources_of(preset, execution)
    model = find_model(options.teacher)
    store = Store(options.storage)
    few, many = (
        Pairs(file_source(file), tokenizers_of(model), options.max_tokens)
        for file in (options.labeled, options.unlabeled)
    )
    store.check_writable()
    ray_address(cluster.address)  # refused before the seconds that Ray takes to import

    from weakteach.run.cluster import shared, start_ray

    console, store = terminal(), shared(store)
    joined = start_ray(cluster.address, 1, resources, verbose, cluster.dashboard)
    if joined.dashboard:
        console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
    work = Work(console, store, resources)
    has_choices = read_pairs(work, few, many, options)
    teacher, test = teacher_of(few, work, preset, options)
    weak = WeakLabels(teacher, many.all, teacher.dtype)
    accuracy = work.obtain(
        "testing the teacher", Agreement(WeakLabels(teacher, test.test, teacher.dtype))
    )
    if count := work.obtain("labeling", weak)["quarantined"]:
        console.print(f"{options.unlabeled.name}: {count} pairs could not be labeled")
    report_share(console, "Teacher accuracy on held-out human choices", accuracy)
    if has_choices:
        report_share(
            console,
            "Agreement with the human choices of the unlabeled file",
            work.obtain("comparing", Agreement(weak)),
        )
    export(store, few, many, weak, options.out)
    console.print(f"Labels, preferences and quarantine: {options.out}", soft_wrap=True)


@dataclass(frozen=True)
class Work:
    """Steps are obtained one after another, each with a line that follows it."""

    console: Console
    store: Store
    resources: Resources

    def obtain(self, text: str, step: Step) -> dict[str, Any]:
        """The facts of the step's record."""
        with following(self.console, text) as progress:

            def told(step: Step, done: int, total: int, tokens: int = 0) -> None:
                progress(done, total, tokens)

            facts: dict[str, Any] = obtain(self.store, step, self.resources, told)["facts"]
            return facts


def read_pairs(work: Work, few: Pairs, many: Pairs, options: LabelOptions) -> bool:
    """Read both files and say what was in them; whether the unlabeled one holds human choices.

    Raises DataError if the labeled one holds none.
    """
    few_facts = work.obtain("reading labeled pairs", few)
    many_facts = work.obtain("reading unlabeled pairs", many)
    for file, facts in ((options.labeled, few_facts), (options.unlabeled, many_facts)):
        counts = f"{facts['rows']} rows = {facts['pairs']} pairs + {facts['quarantined']}"
        work.console.print(f"{file.name}: {counts} in quarantine")
    if not few_facts["choices"]:
        raise DataError(f"{options.labeled}: no row says which response a human chose")
    return bool(many_facts["choices"])


def teacher_of(
    few: Pairs, work: Work, preset: Preset, options: LabelOptions
) -> tuple[Dpo, HeldOut]:
    """The teacher, trained on labeled pairs but for those held out to test it."""
    model = find_model(options.teacher)
    recipes = preset.data.teacher_recipes(str(model))
    pairs = obtain(work.store, few)["facts"]["pairs"]
    parts = HeldOut(few, max(1, min(LARGEST_HELD_OUT, int(options.held_out * pairs))))
    choices, dtype = HumanLabels(parts.train), options.dtype or preset.dtype
    documents = preset.pretraining_documents or LAPTOP.pretraining_documents
    sft = Sft(policy_of(model, documents), choices, recipes.sft, options.seed, dtype=dtype)
    dpo = Dpo(sft, choices, recipes.dpo, options.seed, dtype=dtype)
    work.obtain("training the teacher (SFT)", sft)
    work.obtain("training the teacher (DPO)", dpo)
    return dpo, parts


def report_share(console: Console, what: str, facts: dict[str, Any]) -> None:
    """Print a share of agreeing pairs with its interval, and whether it could be chance."""
    from weakteach.statistics.estimate import wilson_interval  # scipy: slow to import

    low, high = wilson_interval(facts["agreed"], facts["compared"])
    share = facts["agreed"] / facts["compared"]
    verdict = "" if low > 0.5 else ": not distinguishable from chance, do not use these labels"
    console.print(
        f"{what}: {share:.1%} (95 % interval {low:.1%} to {high:.1%}, {facts['compared']} pairs)"
        f"{verdict}"
    )
