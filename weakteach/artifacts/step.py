"""A step is a value: a frozen dataclass whose fields are its parameters and the steps it reads."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, final

from weakteach.artifacts.identity import Identified, identity_fields
from weakteach.artifacts.store import Store


class Progress(Protocol):
    """Told how much of a step's work is done, how much there is in all, and the tokens read."""

    def __call__(self, done: int, total: int, tokens: int = 0) -> None: ...


@dataclass(frozen=True)
class Workspace:
    """What a step is given to compute itself: its inputs' artifacts and places to write to.

    ``out`` is a local folder whose files become the artifact, ``stage`` the folder on the storage
    to which they go: what other hosts write there becomes part of it too. ``scratch`` is a folder
    on the storage, ``run_folder`` one of this host, that outlive a killed try. ``execution`` says
    how to run (devices, workers), which changes no number beyond the order of a sum: None, or a
    dataclass, which is written into the record.
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
        """``scratch`` as a URL, for libraries that open storages themselves."""
        return self.store.url_of(self.scratch)


class Step(Identified, ABC):
    """Base of all steps. Subclasses are frozen dataclasses; see ``Identified`` for VERSION."""

    @abstractmethod
    def compute(self, workspace: Workspace) -> dict[str, Any]:
        """Fill ``workspace.out`` and return facts for the record (row counts and the like)."""

    @final
    @cached_property
    def inputs(self) -> tuple["Step", ...]:
        """The steps in the fields, each once, in field order; also those in tuples and dataclasses.

        A step reads no other artifacts than theirs, and what those were made from: all of that is
        in its fingerprint. A field with ``init=False``, set in ``__post_init__``, may hold a step
        that follows from the other fields.
        """
        found = (step for item in identity_fields(self) for step in _steps_in(item[1]))
        return tuple(dict.fromkeys(found))


def walk(targets: Iterable[Step]) -> list[Step]:
    """The targets and all that they read, each once, inputs before their readers."""
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
