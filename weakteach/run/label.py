"""``weakteach label``: a verdict on a teacher of a user's few human choices, and its labels.

What can be refused is refused here, before Ray starts; ``run/labeling.py`` does the work.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter

from weakteach.artifacts.dropping import at_hand
from weakteach.artifacts.step import walk
from weakteach.artifacts.store import Store
from weakteach.models.size import context_of
from weakteach.models.spec import Model, find_model
from weakteach.models.tiny.family import FAMILY
from weakteach.preferences.pair import DataError
from weakteach.preferences.rows import Wishes
from weakteach.preferences.sources import UserSource, data_source
from weakteach.preferences.table import write_pairs
from weakteach.run.address import is_here, ray_address
from weakteach.run.check import Looked, look, summarize, tell_lengths
from weakteach.run.disk import bytes_on_host, disk_of
from weakteach.run.export import begin, check_out, quarantine_anew
from weakteach.run.fit import footprints
from weakteach.run.needs import Needs
from weakteach.run.options import (
    Cluster,
    ClusterOptions,
    ExecutionOptions,
    Judging,
    JudgingOptions,
    LabelOptions,
    Verbose,
    resources_of,
)
from weakteach.run.readiness import (
    Taken,
    check_cards,
    check_cluster_file,
    check_needs,
    check_run,
    tell_open_questions,
)
from weakteach.run.readiness import refuse as refuse_problems
from weakteach.run.simulation import widest
from weakteach.run.terminal import terminal
from weakteach.steps.data import Pairs
from weakteach.study.policies import policy_of, tokenizers_of
from weakteach.study.presets import PRESETS

# One to learn from, and one of another prompt to test with.
FEWEST_LABELED = 2


def label(
    *,
    options: Annotated[LabelOptions, Parameter(name="*")],
    judging: JudgingOptions = Judging(),  # noqa: B008, a frozen value
    execution: ExecutionOptions = None,
    cluster: ClusterOptions = Cluster(),  # noqa: B008
    verbose: Verbose = False,
) -> int:
    """Label pairs with a teacher trained on a few human choices.

    First the teacher is judged on labeled pairs that it did not learn from; if it is not
    told from chance, nothing is labeled and the exit code is 3. The last line says what
    to do: use the labels, use the confident part, collect more, or try another teacher.

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
    names = (options.teacher, *judging.rivals)
    models = tuple(find_model(name, resolve=False) for name in names)
    needs = Needs(tuple(one for one in models if one.label not in FAMILY), (), (), ())
    # Whatever the models' context, pairs that are longer go to quarantine.
    problems = check_needs(needs, max_tokens=0)
    refuse_problems(problems + check_cluster_file(cluster.cluster_file, resources))
    if needs.of_hub:
        models = tuple(find_model(name) for name in names)
    model = models[0]
    wishes = Wishes.of(options.columns, options.choice_values)
    named = [names for names in (options.labeled, options.unlabeled, judging.elsewhere) if names]
    sources = [data_source(files, wishes) for files in named]
    most = min(context_of(one) or options.max_tokens for one in models)
    most = min(most, options.max_tokens)
    tokenizers = tokenizers_of(*(policy_of(one, preset.pretraining_documents) for one in models))
    few, many, *elsewhere = (Pairs(source, tokenizers, most) for source in sources)
    run = run_of(options, judging, models, few, many)
    inputs = [name for files in named for name in files]
    check_out(options.out, run, options.overwrite, inputs)
    store = Store(options.storage)
    store.check_writable()
    ray_address(cluster.address)  # refused before the seconds that Ray takes to import

    console = terminal()
    looked = [look(source) for source in sources]
    summarize(console, looked)
    if cluster.check:
        refuse(looked, options.ask_humans)
        usable = tell_lengths(console, looked, model, options.max_tokens)
        refuse_lengths(looked, usable, model, most, options.max_tokens)
    else:
        begin(options.out, run)
        try:
            refuse(looked, options.ask_humans)
        except DataError:
            quarantine_anew([_without_lengths(source) for source in sources], options.out)
            raise
        usable = tell_lengths(console, looked, model, options.max_tokens)
        try:
            refuse_lengths(looked, usable, model, most, options.max_tokens)
        except DataError:
            quarantine_anew([partial(pairs.write, store) for pairs in (few, many)], options.out)
            raise
    # Of fewer prompts than folds each is a fold.
    share = max(judging.held_out, 1 / looked[0].labeled_prompts)
    judging = replace(judging, held_out=share)

    from weakteach.run.labeling import Labeling, run_labeling

    job = Labeling(
        console, store, resources, preset, models, options, judging, few, many,
        elsewhere[0] if elsewhere else None, run,
    )  # fmt: skip
    steps = walk([job.verdict, job.weak(options.seed)])
    existing = at_hand(store, steps)
    missing = [step for step in steps if step.fingerprint not in existing]
    needed = widest(missing, resources, options.max_tokens)
    taken = Taken(
        missing, needed, options.max_tokens, footprints(missing, resources, options.max_tokens),
        disk_of(missing, [], 1).needed(drop=False), bytes_on_host(missing),
    )  # fmt: skip
    refuse_problems(check_run(taken, store, cluster))
    tell_open_questions(cluster.cluster_file, needed)
    if cluster.check:
        if missing and not is_here(cluster.address):
            from weakteach.run.cluster import look_at

            nodes, waits = look_at(cluster.address, needed, verbose)
            refuse_problems(check_cards(nodes, missing, resources, options.max_tokens))
            for line in waits:
                console.print(line, soft_wrap=True)
        console.print("All is there. Nothing was started.")
        return 0

    from weakteach.run.cluster import SECONDS_FOR_NODES, nodes_now, shared, start_ray, what_waits

    joined = start_ray(cluster.address, 1, resources, verbose, cluster.dashboard)
    if joined.dashboard:
        console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
    for line in what_waits(joined, needed, SECONDS_FOR_NODES):
        console.print(line, soft_wrap=True)
    refuse_problems(check_cards(nodes_now(), missing, resources, options.max_tokens))
    return run_labeling(replace(job, store=shared(store)))


def run_of(
    options: LabelOptions, judging: Judging, models: Sequence[Model], few: Pairs, many: Pairs
) -> dict[str, Any]:
    """What makes two runs the same: whose files may replace each other, and whose artifacts are
    the same."""
    return {
        "labeled": few.source.name,
        "unlabeled": many.source.name,
        "labeled_pairs": few.fingerprint,
        "unlabeled_pairs": many.fingerprint,
        "teacher": str(models[0]),
        "teacher_content": models[0].content,
        "rivals": [model.content for model in models[1:]],
        "preset": options.preset,
        "seed": options.seed,
        "held_out": judging.held_out,
        "rounds": judging.rounds,
        "curve": [str(share) for share in judging.shares],
        "other_seeds": judging.other_seeds,
        "dtype": options.dtype,
        "min_confidence": options.min_confidence,
        "as_text": options.as_text,
        "weights": options.weights,
        "ask_humans": options.ask_humans,
    }


def refuse(looked: Sequence[Looked], ask_humans: int) -> None:
    """Raises DataError for a file without pairs, for one with too few human choices, and where
    humans are to be asked but have labeled all."""
    for found in (one.overview for one in looked):
        if not found.pairs:
            first = next(iter(found.examples.values()), None)
            why = f", the first ({first.place}) for: {first.reason}" if first else ""
            raise DataError(
                f"{found.name} holds no usable pair: all of its {found.rows} rows are in "
                f"quarantine{why}"
            )
    for found in (looked[0].overview, *(one.overview for one in looked[2:])):
        if not found.choices:
            raise DataError(
                f"{found.name}: no row says which response a human chose: give chosen and "
                "rejected, or a column choice, or name them with --columns"
            )
    many = looked[1].overview
    if ask_humans and many.choices >= many.pairs:
        raise DataError(
            f"--ask-humans: every pair of {many.name} has a human choice, so there is none to ask "
            "about: leave the option out"
        )
    labeled, prompts = looked[0].overview, looked[0].labeled_prompts
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
