"""A step is a value: a frozen dataclass of its parameters and of the steps that it reads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, final

from weakteach.artifacts.identity import Identified, identity_fields
from weakteach.artifacts.store import Store


class Progress(Protocol):
    """Called with how much of a step's work is done, how much there is in all (0 where that is not
    known), how many tokens were read, and whether the work is waiting for a device."""

    def __call__(self, done: int, total: int, tokens: int = 0, waits: bool = False) -> None: ...


@dataclass(frozen=True)
class Workspace:
    """The argument of ``Step.compute``: the store with the artifacts that it reads, and places to
    write to.

    The files in ``out``, a local folder, become the artifact. They are moved to ``stage``, a folder
    of the storage; what other hosts write there becomes part of the artifact too. ``scratch``, a
    folder of the storage, and ``run_folder``, a folder of this host, are kept if the process is
    killed, so that the next attempt finds them.

    ``execution`` says how to run: devices, workers, batch sizes. It changes results at most by the
    order in which numbers are summed. It is a dataclass, which is written into the record, or None.
    """

    store: Store
    out: Path
    stage: str
    scratch: str
    run_folder: Path
    execution: Any = None
    progress: Progress | None = None

    @property
    def scratch_url(self) -> str:
        """``scratch`` as a URL, for libraries that open the storage themselves."""
        return self.store.url_of(self.scratch)


class Step(Identified, ABC):
    """Base class of all steps, which are frozen dataclasses. See ``Identified`` for VERSION."""

    @abstractmethod
    def compute(self, workspace: Workspace) -> dict[str, Any]:
        """Write the artifact's files to ``workspace.out``. Return facts for the record, such as the
        number of rows."""

    @final
    @cached_property
    def inputs(self) -> tuple["Step", ...]:
        """The steps in this step's fields, also inside tuples and dataclasses, each once.

        A step may read the artifacts of its inputs, and of their inputs, but no others: only those
        are part of its fingerprint. If it reads an artifact whose step follows from its other
        fields, it has a field for that step with ``init=False``, which ``__post_init__`` sets.
        """
        found = (step for item in identity_fields(self) for step in _steps_in(item[1]))
        return tuple(dict.fromkeys(found))

    @property
    def bulk(self) -> tuple[str, ...]:
        """Patterns for the names of artifact files that may be dropped once nobody is about to read
        them (see ``dropping.py``). If they are needed later, the step is computed anew."""
        return ()

    @final
    @cached_property
    def read_in_bulk(self) -> tuple["Step", ...]:
        """The steps with bulk among this step's inputs and their inputs, which it may read."""
        near = (one for parent in self.inputs for one in (parent, *parent.inputs))
        return tuple(dict.fromkeys(step for step in near if step.bulk))


def walk(targets: Iterable[Step]) -> list[Step]:
    """The targets, their inputs, the inputs of those and so on, each once and after its inputs."""
    ordered: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.fingerprint not in ordered:
            for parent in step.inputs:
                visit(parent)
            ordered[step.fingerprint] = step

    for target in targets:
        visit(target)
    return list(ordered.values())


def _steps_in(value: Any) -> Iterator[Step]:
    if isinstance(value, Step):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _steps_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for _, item in identity_fields(value):
            yield from _steps_in(item)
