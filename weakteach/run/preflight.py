"""What would fail later, found before Ray starts and before money is spent.

Each check takes values and gives problems; none of them loads weights.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.models.resources import GIB, Resources, room_of
from weakteach.models.spec import (
    CONFIG,
    TOKENIZER_FILES,
    UNRESOLVED,
    Model,
    RewardForm,
    fetch,
    find_model,
)
from weakteach.preferences.pair import Quarantined
from weakteach.run.nodes import ACCELERATOR, NodeType

FIRST_ROWS = 100
# Of a node's disk, for the system, Ray's image with CUDA, and its logs.
SYSTEM_GIB = 50


@dataclass(frozen=True)
class Problem:
    """One thing that would fail: ``what`` is wrong, ``where``, and the ``remedy``."""

    where: str
    what: str
    remedy: str


def problem_table(problems: Sequence[Problem]) -> Table:
    count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    table = Table(title=f"{count} before the start", title_justify="left")
    for heading in ("where", "what", "remedy"):
        table.add_column(heading, overflow="fold")
    for problem in problems:
        table.add_row(problem.where, problem.what, problem.remedy)
    return table


def _said(where: str, check: Callable[[], Any]) -> tuple[Any, list[Problem]]:
    """What the check gives, and its one error as a problem: the sentence and, after its first
    colon, the remedy."""
    try:
        return check(), []
    except UserError as error:
        what, _, remedy = str(error).partition(": ")
        return None, [Problem(where, what, remedy or "see the message")]


def check_models(models: Iterable[Model], max_tokens: int) -> list[Problem]:
    """Of models that are trained or labeled with: that each is there, may be fetched, has weights,
    a tokenizer with EOS, and a context of ``max_tokens``."""
    problems: list[Problem] = []
    for model in dict.fromkeys(models):
        found, why = _found(model)
        problems += why or _check_files(found, "text", max_tokens)
    return problems


def check_golds(golds: Iterable[tuple[Model, RewardForm]]) -> list[Problem]:
    """Of reward models with the form that they are read in: as above, a head with one output, and
    a chat template where it is needed."""
    problems: list[Problem] = []
    for model, form in dict.fromkeys(golds):
        found, why = _found(model)
        why = why or [*_check_files(found, form, 0)]
        problems += why or _check_head(found)
    return problems


def check_embeddings(models: Iterable[Model]) -> list[Problem]:
    """Of models of sentences: that each is there and may be fetched, and the library installed."""
    problems: list[Problem] = []
    for model in dict.fromkeys(models):
        found, why = _found(model)
        if not why:
            _, why = _said(found.label, lambda: _small_files(found))  # noqa: B023
        problems += why
        if not why and util.find_spec("sentence_transformers") is None:
            what = "it needs sentence-transformers, which is not installed"
            problems.append(Problem(model.label, what, "pip install 'weakteach[similarity]'"))
    return problems


def _found(model: Model) -> tuple[Model, list[Problem]]:
    """The model at its revision of now, if that was not looked up."""
    if model.content.endswith(f"@{UNRESOLVED}"):
        return _said(model.label, lambda: find_model(model.label))
    return model, []


def _check_files(model: Model, form: RewardForm, max_tokens: int) -> Iterable[Problem]:
    if model.is_gguf or model.is_untrained:
        return []
    name = model.label
    folder, found = _said(name, lambda: _small_files(model))
    if found:
        return found
    return [*_check_tokenizer(name, folder, form), *_check_context(name, folder, max_tokens)]


def _small_files(model: Model) -> Path:
    """Config and tokenizer of a model, fetched without its weights."""
    if model.content.startswith("sha256:"):
        return Path(model.location)
    return fetch(model, [CONFIG, *TOKENIZER_FILES])


def _check_tokenizer(name: str, folder: Path, form: RewardForm) -> Iterator[Problem]:
    from transformers import AutoTokenizer  # slow to import, needed for models with files alone

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # readers of many formats raise many classes
        yield Problem(
            name,
            f"its tokenizer cannot be read ({type(error).__name__})",
            "use a model whose tokenizer needs no code of its own",
        )
        return
    if form == "text" and tokenizer.eos_token_id is None:
        yield Problem(name, "its tokenizer has no EOS, so no response can end", "use another model")
    if form == "chat" and not tokenizer.chat_template:
        yield Problem(name, "it has no chat template", f"give it as pair:{name}, or without a form")


def _config(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / CONFIG).read_text())


def _check_context(name: str, folder: Path, max_tokens: int) -> Iterator[Problem]:
    config = _config(folder)
    config = config.get("text_config") or config
    context = config.get("max_position_embeddings") or config.get("n_positions")
    if context and context < max_tokens:
        yield Problem(
            name,
            f"it reads {context} tokens, and pairs may have {max_tokens}",
            f"--max-tokens {context}, or another model",
        )
    if "auto_map" in config and not config.get("model_type"):
        yield Problem(name, "it comes with code of its own, which is not run", "use another model")


def _check_head(model: Model) -> Iterator[Problem]:
    config = _config(_small_files(model))
    labels = config.get("num_labels") or len(config.get("id2label") or {0: "", 1: ""})
    kinds = config.get("architectures") or [""]
    if labels != 1 or not kinds[0].endswith("ForSequenceClassification"):
        yield Problem(
            model.label,
            f"it is no reward model: {kinds[0] or 'no architecture'} with {labels} outputs",
            "give a sequence-classification model with one output as --gold",
        )


def check_source(data: str, find: Callable[[], Any]) -> list[Problem]:
    """That the source of pairs is there, with a split and columns that hold pairs: its first rows
    are read. ``find`` makes the source."""
    source, found = _said(data, find)
    if found:
        return found
    rows, found = _said(data, lambda: list(islice(source.read(), FIRST_ROWS)))
    if found:
        return found
    if not rows:
        return [Problem(data, "it holds no rows", "give other pairs as --data")]
    if all(isinstance(row, Quarantined) for row in rows):
        what = f"none of its first {len(rows)} rows is a pair ({rows[0].reason}: {rows[0].detail})"
        return [Problem(data, what, "rename its columns, or give others as --data")]
    return []


def check_cluster(where: str, nodes: Sequence[NodeType], resources: Resources) -> list[Problem]:
    """That the nodes can ever place the workers of one step, all of a training at a time."""
    if not resources.gpus and not resources.train_workers:
        return []
    kind = f"{ACCELERATOR}{resources.gpu_type}"
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    with_type = [n for n in nodes if not resources.gpu_type or n.resources.get(kind)]
    if not with_type:
        types = sorted(
            {r.removeprefix(ACCELERATOR) for n in nodes for r in n.resources if ACCELERATOR in r}
        )
        return [
            Problem(
                where,
                f"no node has a {resources.gpu_type} GPU",
                f"--gpu-type {' or '.join(types) if types else 'any'}, or another cluster",
            )
        ]
    fits = [
        min(int(n.resources.get(name, 0) // amount) for name, amount in wanted.items() if amount)
        for n in with_type
    ]
    if not max(fits):
        return [
            Problem(
                where,
                f"no node has {resources.gpus:g} GPUs and {resources.cpus:g} CPUs for one worker",
                "ask for fewer with --gpus and --cpus, or larger nodes",
            )
        ]
    room = sum(fit * node.count for fit, node in zip(fits, with_type, strict=True))
    problems = []
    for option, count in (
        ("--train-workers", resources.train_workers),
        ("--label-actors", resources.label_actors),
    ):
        if count > room:
            what = f"{count} workers are asked for, and all nodes together hold {room}"
            problems.append(Problem(where, what, f"{option} {room}, or a larger cluster"))
    cpus = sum(node.resources.get("CPU", 0) * node.count for node in nodes)
    taken = resources.label_actors * resources.cpus
    if resources.preparing_cpus and taken <= cpus < taken + resources.preparing_cpus:
        what = f"labeling actors take all {cpus:g} CPUs, and leave none to tokenize for them"
        problems.append(Problem(where, what, "fewer --cpus or --label-actors, or a larger cluster"))
    return problems


def check_hosts(
    where: str, nodes: Sequence[NodeType], resources: Resources, needed: float
) -> list[Problem]:
    """That the disks of nodes which may hold a worker have room for the bytes that steps keep on
    their hosts, beside the system and Ray's image."""
    return [
        Problem(
            where,
            f"steps keep up to {needed / GIB:,.0f} GiB on their host (models, checkpoints), and "
            f"the disk of {node.name} has room for {node.disk / GIB - SYSTEM_GIB:,.0f} GiB",
            f"a disk of {needed / GIB + SYSTEM_GIB:,.0f} GiB or more in the file, or --sft-lora",
        )
        for node in nodes
        if node.disk is not None
        and node.resources.get("GPU", 0) >= resources.gpus
        and needed > node.disk - SYSTEM_GIB * GIB
        and (not resources.gpu_type or f"{ACCELERATOR}{resources.gpu_type}" in node.resources)
    ]


def check_memory(
    steps: Iterable[tuple[str, float, str]], resources: Resources, gib: float | None = None
) -> list[Problem]:
    """That the bytes which each step takes on a GPU are there, by names of steps and the remedy if
    they are not. ``gib`` is the memory of the device; without it, the smallest that is sold under
    the GPU's name."""
    room = room_of(resources) if gib is None else gib * GIB * min(1.0, resources.gpus)
    if not resources.gpus or room is None:
        return []
    return [
        Problem(
            name,
            f"it takes about {needed / GIB:.0f} GiB, and its share of a "
            f"{resources.gpu_type or 'GPU'} is {room / GIB:.0f} GiB",
            remedy,
        )
        for name, needed, remedy in steps
        if needed > room
    ]


def check_nf4(resources: Resources) -> list[Problem]:
    """That there are GPUs, and the library, for bases in 4 bits."""
    where, found = "--lora-base nf4", []
    if not resources.gpus:
        found.append(Problem(where, "a base in 4 bits needs a CUDA GPU", "--gpus 1"))
    if util.find_spec("bitsandbytes") is None:
        what = "it needs bitsandbytes, which is not installed"
        found.append(Problem(where, what, "pip install 'weakteach[nf4]', here and on every host"))
    return found


def check_disk(where: str, free: float, needed: float) -> list[Problem]:
    """That ``needed`` bytes have room."""
    if needed <= free:
        return []
    what = f"about {needed / GIB:,.0f} GiB will be written, and {free / GIB:,.0f} GiB are free"
    return [Problem(where, what, "another --storage, --drop-sft of sweeps, or `weakteach gc`")]


def free_bytes(store: Store) -> float:
    """Of the storage; without bound where it is no file system."""
    if not store.is_local:
        return float("inf")
    folder = Path(store.root)
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
