"""Checks, before Ray starts, that everything a run needs is there. With ``--check``, nothing is
started afterwards.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from weakteach.artifacts.copies import cache_folder
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.preferences.sources import UNRESOLVED, HubSource, Source, hub_source
from weakteach.run.address import is_here
from weakteach.run.capacity import (
    Host,
    check_cluster,
    check_disk,
    check_host_memory,
    check_hosts,
    check_memory,
    free_bytes,
    hosts_of,
    open_questions,
)
from weakteach.run.concurrency import memory_here
from weakteach.run.fit import Footprint, footprints
from weakteach.run.needs import Needs, named
from weakteach.run.nodes import NodeType, nodes_of_file, smallest_card
from weakteach.run.options import Cluster
from weakteach.run.preflight import (
    Problem,
    check_embeddings,
    check_golds,
    check_models,
    check_source,
    problem_table,
)
from weakteach.run.terminal import terminal


class NotReadyError(UserError):
    """Something is missing that a run needs."""


def refuse(problems: Sequence[Problem]) -> None:
    """Raises NotReadyError if there are problems; several are printed as a table before."""
    if not problems:
        return
    if len(problems) == 1:
        (one,) = problems
        raise NotReadyError(f"{one.where}: {one.what}: {one.remedy}")
    console = terminal(stderr=True)
    console.print(problem_table(problems))
    raise NotReadyError(
        f"{len(problems)} problems, told above with their remedies; nothing was started"
    )


def check_needs(needs: Needs, max_tokens: int) -> list[Problem]:
    """Check models, golds and data. Of those that are on the hub, the listing, small files and
    first rows are fetched."""
    if needs.of_hub:
        count = len(needs.models) + len(needs.golds) + len(needs.embeddings) + len(needs.sources)
        terminal().print(f"Looking at {count} models and data sets before anything starts.")
    with _without_bars() if needs.of_hub else nullcontext():  # the files are small
        problems = check_models(needs.models, max_tokens, needs.writers)
        problems += check_golds(needs.golds) + check_embeddings(needs.embeddings)
    for source in needs.sources:
        problems += check_source(named(source), lambda: _at_revision(source))  # noqa: B023
    return problems


@contextmanager
def _without_bars() -> Iterator[None]:
    from huggingface_hub import utils  # slow to import, needed for hub models alone

    shown = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            utils.enable_progress_bars()


def _at_revision(source: Source) -> Source:
    if isinstance(source, HubSource) and source.revision == UNRESOLVED:
        return hub_source(source.dataset, source.split, source.config, wishes=source.wishes)
    return source


def check_cluster_file(file: Path | None, resources: Resources) -> list[Problem]:
    """Check that the nodes of a cluster file can hold what is asked for. Raises UserError for a
    file that is no cluster file."""
    return check_cluster(file.name, nodes_of_file(file), resources) if file else []


def tell_open_questions(file: Path | None, resources: Resources) -> None:
    """Print what a cluster file leaves open. Raises UserError if it is no cluster file."""
    if file:
        for line in open_questions(file.name, nodes_of_file(file), resources):
            terminal().print(line, soft_wrap=True)


@dataclass(frozen=True)
class Taken:
    """What the ``missing`` steps of a run take. ``resources`` are those of the step that asks for
    most, ``footprints`` tell what is taken of a device, and ``written`` and ``on_host`` are the
    bytes that are written to the storage and kept on a host."""

    missing: Sequence[Step]
    resources: Resources
    max_tokens: int
    footprints: Sequence[Footprint]
    written: float
    on_host: float


def loads_of(footprints: Iterable[Footprint]) -> list[tuple[str, float, int]]:
    """What workers load into the memory of their host, as ``check_host_memory`` takes it."""
    return [(one.name, one.loaded, one.workers) for one in footprints]


def check_run(taken: Taken, store: Store, where: Cluster) -> list[Problem]:
    """Check that steps fit the memory of a GPU and of hosts, and that the storage and the disks of
    hosts have room for what they write and keep. The hosts are the nodes of a cluster file or this
    machine. Raises UserError for a file that is no cluster file."""
    problems = check_footprints(taken.footprints, taken.resources)
    if store.is_local:
        problems += check_disk(store.url, free_bytes(Path(store.root)), taken.written)
    if where.cluster_file:
        return problems + _check_file(where.cluster_file, taken)
    return problems + (_check_machine(taken, store) if is_here(where.address) else [])


def _check_file(file: Path, taken: Taken) -> list[Problem]:
    nodes, resources = nodes_of_file(file), taken.resources
    return [
        *check_cluster(file.name, nodes, resources),
        *check_hosts(file.name, nodes, resources, taken.on_host),
        *check_host_memory(file.name, hosts_of(nodes, resources), loads_of(taken.footprints)),
        *check_cards(nodes, taken.missing, resources, taken.max_tokens),
    ]


def _check_machine(taken: Taken, store: Store) -> list[Problem]:
    """Check this machine, on which Ray is to start."""
    hosts = [Host("this machine", memory_here())]
    problems = check_host_memory("this machine", hosts, loads_of(taken.footprints))
    if store.is_local:
        return problems
    folder = cache_folder()
    remedy = "WEAKTEACH_CACHE on a larger disk, or --sft-lora of sweeps"
    return problems + check_disk(str(folder), free_bytes(folder), taken.on_host, remedy)


def check_nodes(
    nodes: Sequence[NodeType], missing: Sequence[Step], resources: Resources, max_tokens: int
) -> list[Problem]:
    """Check that steps fit the GPUs and the memory of nodes that are there."""
    found = footprints(missing, resources, max_tokens)
    return [
        *check_cards(nodes, missing, resources, max_tokens),
        *check_host_memory("Ray", hosts_of(nodes, resources), loads_of(found)),
    ]


def check_cards(
    nodes: Sequence[NodeType], missing: Iterable[Step], resources: Resources, max_tokens: int
) -> list[Problem]:
    """Check, if no type of GPU is asked for, that steps fit the smallest GPU on which they may be
    placed, of the nodes whose GPU type is known."""
    if (room := smallest_card(nodes, resources)) is None:
        return []
    return check_footprints(footprints(missing, resources, max_tokens, room), resources, room)


def check_footprints(
    taken: Iterable[Footprint], resources: Resources, room: float | None = None
) -> list[Problem]:
    """Check that steps, once they are made to fit, take no more than the memory of a GPU of the
    type asked for or, if it is given, ``room``, in bytes."""
    return check_memory([(one.name, one.fitted, one.remedy) for one in taken], resources, room)
