"""Whether all is there that a run needs; asked before Ray starts, and by ``--check`` alone."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.preferences.sources import UNRESOLVED, HubSource, Source, hub_source
from weakteach.run.capacity import (
    check_cluster,
    check_disk,
    check_hosts,
    check_memory,
    free_bytes,
    open_questions,
)
from weakteach.run.fit import Footprint
from weakteach.run.needs import Needs, named
from weakteach.run.nodes import nodes_of_file
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
    """Models, golds and data: of those of the hub their listing, small files and first rows are
    fetched."""
    if needs.of_hub:
        count = len(needs.models) + len(needs.golds) + len(needs.embeddings) + len(needs.sources)
        terminal().print(f"Looking at {count} models and data sets before anything starts.")
    with _without_bars() if needs.of_hub else nullcontext():  # of files that are small
        problems = check_models(needs.models, max_tokens)
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


def check_cluster_file(
    file: Path | None, resources: Resources, on_host: float = 0.0
) -> list[Problem]:
    """That the nodes of a cluster file can hold what is asked for, and their disks the bytes that a
    step keeps ``on_host``. Raises UserError for a file that is none."""
    if not file:
        return []
    nodes = nodes_of_file(file)
    problems = check_cluster(file.name, nodes, resources)
    return problems + check_hosts(file.name, nodes, resources, on_host)


def tell_open_questions(file: Path | None, resources: Resources) -> None:
    """Print what a cluster file leaves open. Raises UserError for a file that is none."""
    if file:
        for line in open_questions(file.name, nodes_of_file(file), resources):
            terminal().print(line, soft_wrap=True)


def check_run(
    written: float, taken: Iterable[Footprint], store: Store, resources: Resources
) -> list[Problem]:
    """That steps fit the memory of a GPU, and the bytes that are ``written`` the storage."""
    problems = check_footprints(taken, resources)
    return problems + check_disk(store.url, free_bytes(store), written)


def check_footprints(taken: Iterable[Footprint], resources: Resources) -> list[Problem]:
    """That steps, as they are made to fit, fit the memory of a GPU."""
    return check_memory(
        [(f"{one.kind} of {one.model}", one.fitted, one.remedy) for one in taken], resources
    )
