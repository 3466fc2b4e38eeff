"""``weakteach label``: labels of a user's own pairs by a teacher of a few human choices.

What can be refused is refused here, before Ray starts; ``run/labeling.py`` does the work.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter

from weakteach.artifacts.step import walk
from weakteach.artifacts.store import Store
from weakteach.models.size import context_of
from weakteach.models.spec import Model, find_model
from weakteach.models.tiny.family import FAMILY
from weakteach.preferences.pair import DataError
from weakteach.preferences.rows import Wishes
from weakteach.preferences.sources import UserSource, data_source
from weakteach.preferences.table import write_pairs
from weakteach.run.address import ray_address
from weakteach.run.check import Looked, look, summarize, tell_lengths
from weakteach.run.export import begin, check_out, quarantine_anew
from weakteach.run.fit import footprints
from weakteach.run.needs import Needs
from weakteach.run.options import (
    Cluster,
    ClusterOptions,
    ExecutionOptions,
    LabelOptions,
    Verbose,
    resources_of,
)
from weakteach.run.readiness import check_cluster_file, check_needs, check_run
from weakteach.run.readiness import refuse as refuse_problems
from weakteach.run.terminal import terminal
from weakteach.steps.data import Pairs
from weakteach.steps.labels import WeakLabels
from weakteach.study.policies import tokenizers_of
from weakteach.study.presets import PRESETS

# One to learn from, and one of another prompt to test with.
FEWEST_LABELED = 2


def label(
    *,
    options: Annotated[LabelOptions, Parameter(name="*")],
    execution: ExecutionOptions = None,
    cluster: ClusterOptions = Cluster(),  # noqa: B008, a frozen value
    verbose: Verbose = False,
) -> None:
    """Label pairs with a teacher trained on a few human choices.

    Files are JSON, JSONL, CSV, TSV or Parquet, also compressed. Rows hold prompt,
    chosen and rejected, or prompt, response_1, response_2 and choice, or one of many
    forms of public data sets: weakteach check FILE tells how a file is read. Human
    choices in the unlabeled file are never shown to the teacher; they give the
    printed agreement alone.

    Parameters
    ----------
    verbose
        Show logs and tracebacks.
    """
    preset = PRESETS[options.preset]
    resources = resources_of(preset, execution)
    found = find_model(options.teacher, resolve=False)
    needs = Needs(() if found.label in FAMILY else (found,), (), (), ())
    # Whatever the model's context, pairs that are longer go to quarantine.
    problems = check_needs(needs, max_tokens=0)
    refuse_problems(problems + check_cluster_file(cluster.cluster_file, resources))
    model = find_model(options.teacher) if needs.of_hub else found
    wishes = Wishes.of(options.columns, options.choice_values)
    sources = [data_source(named, wishes) for named in (options.labeled, options.unlabeled)]
    most = min(options.max_tokens, context_of(model) or options.max_tokens)
    few, many = (Pairs(source, tokenizers_of(model), most) for source in sources)
    run = run_of(options, model, few, many)
    check_out(options.out, run, options.overwrite)
    store = Store(options.storage)
    store.check_writable()
    ray_address(cluster.address)  # refused before the seconds that Ray takes to import

    console = terminal()
    looked = [look(source) for source in sources]
    summarize(console, looked)
    if cluster.check:
        refuse(looked)
        usable = tell_lengths(console, looked, model, options.max_tokens)
        refuse_lengths(looked, usable, model, most, options.max_tokens)
    else:
        begin(options.out, run)
        try:
            refuse(looked)
        except DataError:
            quarantine_anew([_without_lengths(source) for source in sources], options.out)
            raise
        usable = tell_lengths(console, looked, model, options.max_tokens)
        try:
            refuse_lengths(looked, usable, model, most, options.max_tokens)
        except DataError:
            quarantine_anew([partial(pairs.write, store) for pairs in (few, many)], options.out)
            raise

    from weakteach.run.labeling import Labeling, run_labeling, teacher_of

    _, teacher, _ = teacher_of(options, preset, model, few, looked[0].overview.choices)
    steps = walk([WeakLabels(teacher, many.all, teacher.dtype)])
    existing = store.existing(steps)
    missing = [step for step in steps if step.fingerprint not in existing]
    taken = footprints(missing, resources, options.max_tokens)
    refuse_problems(check_run(missing, taken, store, resources))
    if cluster.check:
        console.print("All is there. Nothing was started.")
        return

    from weakteach.run.cluster import shared, start_ray, what_waits

    joined = start_ray(cluster.address, 1, resources, verbose, cluster.dashboard)
    if joined.dashboard:
        console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
    for line in what_waits(joined, resources):
        console.print(line, soft_wrap=True)
    job = Labeling(console, shared(store), resources, preset, model, options, few, many, run)
    run_labeling(job)


def run_of(options: LabelOptions, model: Model, few: Pairs, many: Pairs) -> dict[str, Any]:
    """What makes two runs the same: whose files may replace each other, and whose artifacts are
    the same."""
    return {
        "labeled": few.source.name,
        "unlabeled": many.source.name,
        "labeled_pairs": few.fingerprint,
        "unlabeled_pairs": many.fingerprint,
        "teacher": str(model),
        "teacher_content": model.content,
        "preset": options.preset,
        "seed": options.seed,
        "held_out": options.held_out,
        "dtype": options.dtype,
        "min_confidence": options.min_confidence,
        "as_text": options.as_text,
    }


def refuse(looked: Sequence[Looked]) -> None:
    """Raises DataError for a file without pairs, and for one with too few human choices."""
    for found in (one.overview for one in looked):
        if not found.pairs:
            first = next(iter(found.examples.values()), None)
            why = f", the first ({first.place}) for: {first.reason}" if first else ""
            raise DataError(
                f"{found.name} holds no usable pair: all of its {found.rows} rows are in "
                f"quarantine{why}"
            )
    labeled = looked[0].overview
    if not labeled.choices:
        raise DataError(
            f"{labeled.name}: no row says which response a human chose: give chosen and rejected, "
            "or a column choice, or name them with --columns"
        )
    prompts = looked[0].labeled_prompts
    if prompts < FEWEST_LABELED:
        raise DataError(
            f"{labeled.name} holds human choices for {prompts} prompt: at least {FEWEST_LABELED} "
            "are needed, one to teach a teacher and one to test it, and some hundreds to tell much"
        )


def refuse_lengths(
    looked: Sequence[Looked], usable: Sequence[int], model: Model, most: int, max_tokens: int
) -> None:
    """Raises DataError for a file of which the model can read no pair, as far as ``usable`` tells
    (see ``tell_lengths``)."""
    for one, count in zip(looked, usable, strict=False):
        if not count and len(one.first) == len(one.pairs):
            why = f"longer than {most} tokens" if most < max_tokens else "longer than --max-tokens"
            remedy = "another --teacher" if most < max_tokens else "a larger --max-tokens"
            raise DataError(
                f"{one.overview.name}: none of its {len(one.pairs)} pairs can be read by {model}: "
                f"they are {why}, or its chat template refuses them; give {remedy}"
            )


def _without_lengths(source: UserSource) -> Any:
    return lambda folder: write_pairs(
        source.read(), folder, source.name, lambda pairs: [0] * len(pairs), 0
    )
