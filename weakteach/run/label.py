"""``weakteach label``: a verdict on a teacher that learns from a user's few human choices, and the
teacher's labels.

What can be refused is refused here, before Ray starts; ``run/labeling.py`` does the work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from weakteach.artifacts.dropping import at_hand
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
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
    check_cluster_file,
    check_needs,
    check_nodes,
    check_run,
    tell_open_questions,
)
from weakteach.run.readiness import refuse as refuse_problems
from weakteach.run.simulation import widest
from weakteach.run.terminal import terminal
from weakteach.steps.data import Pairs
from weakteach.study.policies import policy_of, refuse_namesakes, tokenizers_of
from weakteach.study.presets import PRESETS, Preset

# Prompts with human choices: one to learn from, and one to test with.
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

    First the teacher is judged on labeled pairs that it did not learn from; if
    neither all of its labels nor its confident ones are told from chance, nothing
    is labeled and the exit code is 3. The last line says what to do: use the
    labels, use the confident part, collect more, or try another teacher.

    Files are JSON, JSONL, CSV, TSV (these also compressed) or Parquet. Rows hold
    prompt, chosen and rejected, or prompt, response_1, response_2 and choice, or
    one of many forms of public data sets: weakteach check FILE tells how a file is
    read. Human choices in the unlabeled file are never shown to the teacher; they
    give the printed agreement alone.

    Parameters
    ----------
    verbose
        Show logs and tracebacks.
    """
    preset = PRESETS[options.preset]
    resources = resources_of(preset, execution)
    models = models_of((options.teacher, *judging.rivals), cluster, resources)
    inputs = inputs_of(options, judging, preset, models)
    run = run_of(options, judging, models, inputs)
    check_out(options.out, run, options.overwrite, inputs.paths)
    store = Store(options.storage)
    store.check_writable()
    ray_address(cluster.address)  # refuse it before Ray is imported, which takes seconds

    console = terminal()
    looked = read_all(console, inputs)
    if not cluster.check:
        begin(options.out, run)
    refuse_unusable(console, store, inputs, looked, models, options, told=not cluster.check)
    # If there are fewer prompts than folds, each prompt is a fold.
    share = max(judging.held_out, 1 / looked[0].labeled_prompts)
    judging = replace(judging, held_out=share)

    from weakteach.run.labeling import Labeling, run_labeling

    job = Labeling(
        console, store, resources, preset, models, options, judging, inputs.few, inputs.many,
        inputs.elsewhere, run,
    )  # fmt: skip
    missing = missing_of(store, walk([job.verdict, job.weak(options.seed)]))
    needed = widest(missing, resources, options.max_tokens)
    wanted = Wanted(missing, needed, resources, options.max_tokens, cluster)
    refuse_room(wanted, store)
    if cluster.check:
        if missing and not is_here(cluster.address):
            look_there(wanted, console, verbose)
        console.print("All is there. Nothing was started.")
        return 0
    start(wanted, console, verbose)
    from weakteach.run.cluster import shared

    return run_labeling(replace(job, store=shared(store)))


@dataclass(frozen=True)
class Inputs:
    """What a run reads: labeled pairs, those to label and, if there are any, those of another
    domain, in this order."""

    sources: tuple[UserSource, ...]
    pairs: tuple[Pairs, ...]

    @property
    def paths(self) -> list[str]:
        return [path for source in self.sources for path in source.paths]

    @property
    def few(self) -> Pairs:
        return self.pairs[0]

    @property
    def many(self) -> Pairs:
        return self.pairs[1]

    @property
    def elsewhere(self) -> Pairs | None:
        return self.pairs[2] if len(self.pairs) > 2 else None


def models_of(names: Sequence[str], cluster: Cluster, resources: Resources) -> tuple[Model, ...]:
    """The teacher and its rivals. Raises UserError unless all of them are at hand, no two different
    ones are called alike, and the nodes of the cluster file, if any, can hold what is asked for."""
    models = tuple(find_model(name, resolve=False) for name in names)
    refuse_namesakes(models)
    needs = Needs(tuple(one for one in models if one.label not in FAMILY), (), (), (), ())
    # No context is too short: pairs that are longer go to quarantine.
    problems = check_needs(needs, max_tokens=0)
    refuse_problems(problems + check_cluster_file(cluster.cluster_file, resources))
    return tuple(find_model(name) for name in names) if needs.of_hub else models


def inputs_of(
    options: LabelOptions, judging: Judging, preset: Preset, models: Sequence[Model]
) -> Inputs:
    """The pairs of all files, as far as all of the models can read them."""
    wishes = Wishes.of(options.columns, options.choice_values)
    named = [names for names in (options.labeled, options.unlabeled, judging.elsewhere) if names]
    sources = tuple(data_source(files, wishes) for files in named)
    most = longest_read(models, options.max_tokens)
    tokenizers = tokenizers_of(*(policy_of(one, preset.pretraining_documents) for one in models))
    pairs = tuple(Pairs(source, tokenizers, most) for source in sources)
    return Inputs(sources, pairs)


def longest_read(models: Sequence[Model], max_tokens: int) -> int:
    """Tokens of the longest pair that all of the models can read, at most ``max_tokens``."""
    return min(max_tokens, *(context_of(one) or max_tokens for one in models))


def run_of(
    options: LabelOptions, judging: Judging, models: Sequence[Model], inputs: Inputs
) -> dict[str, Any]:
    """What is equal in two runs that count as the same run: their artifacts are the same, and the
    files of one may replace those of the other."""
    few, many, elsewhere = inputs.few, inputs.many, inputs.elsewhere
    return {
        "labeled": few.source.name,
        "unlabeled": many.source.name,
        "elsewhere": elsewhere.source.name if elsewhere else None,
        "labeled_pairs": few.fingerprint,
        "unlabeled_pairs": many.fingerprint,
        "elsewhere_pairs": elsewhere.fingerprint if elsewhere else None,
        "teacher": str(models[0]),
        "teacher_content": models[0].content,
        "rivals": [model.content for model in models[1:]],
        "preset": options.preset,
        "seed": options.seed,
        "held_out": judging.held_out,
        "rounds": judging.rounds,
        "curve": [str(share) for share in judging.shares],
        "other_seeds": judging.other_seeds,
        "wanted_accuracy": judging.wanted_accuracy,
        "dtype": options.dtype,
        "min_confidence": options.min_confidence,
        "as_text": options.as_text,
        "weights": options.weights,
        "ask_humans": options.ask_humans,
    }


def read_all(console: Console, inputs: Inputs) -> list[Looked]:
    """Read all files and print what they hold."""
    looked = [look(source) for source in inputs.sources]
    summarize(console, looked)
    return looked


def refuse_unusable(
    console: Console,
    store: Store,
    inputs: Inputs,
    looked: Sequence[Looked],
    models: Sequence[Model],
    options: LabelOptions,
    told: bool,
) -> None:
    """Raises DataError for files with which no teacher can be judged or can label; if ``told``,
    their quarantine is written to say why. Prints how long their pairs are."""
    out = options.out if told else None
    with quarantined(out, [_without_lengths(source) for source in inputs.sources]):
        refuse(looked, options.ask_humans)
    usable = tell_lengths(console, looked, models[0], options.max_tokens)
    with quarantined(out, [partial(one.write, store) for one in (inputs.few, inputs.many)]):
        most = longest_read(models, options.max_tokens)
        refuse_lengths(looked, usable, models[0], most, options.max_tokens)


@contextmanager
def quarantined(out: Path | None, files: Sequence[Callable[[Path], Any]]) -> Iterator[None]:
    """If the body of the ``with`` raises DataError and there is an ``out``, ``quarantine_anew``
    writes into it what is wrong with the rows of the files. The error is raised in any case."""
    try:
        yield
    except DataError:
        if out:
            quarantine_anew(files, out)
        raise


def missing_of(store: Store, steps: Sequence[Step]) -> list[Step]:
    """Those of the steps, each after its inputs, that must be computed."""
    existing = at_hand(store, steps)
    return [step for step in steps if step.fingerprint not in existing]


@dataclass(frozen=True)
class Wanted:
    """The steps that must be computed, and the ``resources`` asked for. ``needed`` are the same
    with as many training workers as the largest training takes if it does not fit those."""

    missing: Sequence[Step]
    needed: Resources
    resources: Resources
    max_tokens: int
    cluster: Cluster


def refuse_room(wanted: Wanted, store: Store) -> None:
    """Raises UserError if the disk, the memory or the nodes of a cluster file do not hold the
    missing steps. Prints what a cluster file leaves open."""
    missing = wanted.missing
    taken = Taken(
        missing, wanted.needed, wanted.max_tokens,
        footprints(missing, wanted.resources, wanted.max_tokens),
        disk_of(missing, [], 1).needed(drop=False), bytes_on_host(missing),
    )  # fmt: skip
    refuse_problems(check_run(taken, store, wanted.cluster))
    tell_open_questions(wanted.cluster.cluster_file, wanted.needed)


def look_there(wanted: Wanted, console: Console, verbose: bool) -> None:
    """Print what would wait on a cluster. Raises UserError if a missing step does not fit the GPUs
    or the memory of its nodes."""
    from weakteach.run.cluster import look_at

    nodes, waits = look_at(wanted.cluster.address, wanted.needed, verbose)
    refuse_problems(check_nodes(nodes, wanted.missing, wanted.resources, wanted.max_tokens))
    for line in waits:
        console.print(line, soft_wrap=True)


def start(wanted: Wanted, console: Console, verbose: bool) -> None:
    """Start Ray, or join it, and print where its dashboard is and what waits for lack of room.
    Raises UserError if a missing step does not fit the GPUs or the memory of its nodes."""
    from weakteach.run.cluster import SECONDS_FOR_NODES, nodes_now, start_ray, what_waits

    cluster = wanted.cluster
    joined = start_ray(cluster.address, 1, wanted.resources, verbose, cluster.dashboard)
    if joined.dashboard:
        console.print(f"Dashboard: {joined.dashboard}", soft_wrap=True)
    for line in what_waits(joined, wanted.needed, SECONDS_FOR_NODES):
        console.print(line, soft_wrap=True)
    nodes = nodes_now()
    refuse_problems(check_nodes(nodes, wanted.missing, wanted.resources, wanted.max_tokens))


def refuse(looked: Sequence[Looked], ask_humans: int) -> None:
    """Raises DataError for a file without pairs, for one with too few human choices, and if humans
    are to be asked about pairs to label but have labeled all of them."""
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
    """Raises DataError for a file of which the model can read no pair. ``usable`` is what
    ``tell_lengths`` returns; a file of more pairs than it counts is not refused."""
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
