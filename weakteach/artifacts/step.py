"""A step is a value: a frozen dataclass whose fields are its parameters and the steps it reads."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from weakteach.artifacts.store import Workspace

FINGERPRINT_LENGTH = 20

# Metadata of a dataclass field that says where or how something runs, not what it is:
#   path: str = field(default="", compare=False, metadata=EXECUTION)
EXECUTION = {"identity": False}


class Step(ABC):
    """Base of all steps. Subclasses are frozen dataclasses.

    Raise ``VERSION`` when ``compute`` gives another result for the same fields, and when the
    default of a field changes: fields at their default do not enter the fingerprint, so that a
    new field leaves old artifacts valid.
    """

    VERSION: ClassVar[int] = 1

    @abstractmethod
    def compute(self, workspace: "Workspace") -> dict[str, Any]:
        """Fill ``workspace.out`` and return facts for the record (row counts and the like)."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint hashes, as JSON values; input steps stand in it by fingerprint."""
        return {"step": type(self).__name__, "version": self.VERSION, **_parameters(self)}

    @property
    def parameters(self) -> dict[str, Any]:
        """All fields as JSON values, defaults and those of execution (names, paths) too."""
        return _parameters(self, complete=True)

    @cached_property
    def fingerprint(self) -> str:
        """The same for equal steps in every process and on every Python version."""
        text = json.dumps(self.identity, sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]

    @cached_property
    def inputs(self) -> tuple["Step", ...]:
        """The steps that this one reads, each once, in field order."""
        found = (step for item in _identity_fields(self) for step in _steps_in(item[1]))
        return tuple(dict.fromkeys(found))

    def __str__(self) -> str:
        return f"{type(self).__name__}/{self.fingerprint}"


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


def jsonable(value: Any, complete: bool = False) -> Any:
    """The canonical JSON form of a parameter; equal values have equal forms.

    ``complete`` adds to dataclasses what does not enter a fingerprint. Raises TypeError for what
    has no stable identity (sets, dicts, functions, paths), ValueError for NaN and infinity.
    """
    if isinstance(value, Step):
        return {"step": type(value).__name__, "fingerprint": value.fingerprint}
    if isinstance(value, Enum):
        return {"enum": f"{type(value).__name__}.{value.name}"}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | Fraction):
        return _number(value)
    if isinstance(value, tuple):
        return [jsonable(item, complete) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__name__, **_parameters(value, complete)}
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be a parameter of a step")


def _number(value: int | float | Fraction) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be a parameter of a step")
    if value == int(value):
        return int(value)
    if isinstance(value, Fraction):
        exact = float(value) == value
        return float(value) if exact else {"fraction": f"{value.numerator}/{value.denominator}"}
    return value


def _parameters(instance: Any, complete: bool = False) -> dict[str, Any]:
    if complete:
        named = {field.name: getattr(instance, field.name) for field in fields(instance)}
    else:
        named = {f.name: v for f, v in _identity_fields(instance) if not _is_default(f, v)}
    return {name: jsonable(value, complete) for name, value in named.items()}


def _identity_fields(instance: Any) -> Iterator[tuple[Field[Any], Any]]:
    for field in fields(instance):
        if field.metadata.get("identity", True):
            yield field, getattr(instance, field.name)


def _is_default(field: Field[Any], value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    if field.default_factory is not MISSING:
        return bool(value == field.default_factory())
    return False


def _steps_in(value: Any) -> Iterator[Step]:
    if isinstance(value, Step):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _steps_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for _, item in _identity_fields(value):
            yield from _steps_in(item)
