"""What a value is, apart from where and how it runs: its parameters and its fingerprint."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

FINGERPRINT_LENGTH = 20

# Metadata of a dataclass field that says where or how something runs, not what it is:
#   path: str = field(default="", compare=False, metadata=EXECUTION)
EXECUTION = {"identity": False}


class Identified:
    """Base of the values that an artifact can be of, frozen dataclasses all: they are known by the
    name of their class and their fingerprint. See ``step.Step``.

    Raise ``VERSION`` when the same fields lead to another artifact, and when the default of a field
    changes: fields at their default do not enter the fingerprint, so that a new field leaves old
    artifacts valid.
    """

    VERSION: ClassVar[int] = 1

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

    def __str__(self) -> str:
        return f"{type(self).__name__}/{self.fingerprint}"


def jsonable(value: Any, complete: bool = False) -> Any:
    """The canonical JSON form of a parameter; equal values have equal forms.

    ``complete`` adds to dataclasses what does not enter a fingerprint. Raises TypeError for what
    has no stable identity (sets, dicts, functions, paths), ValueError for NaN and infinity.
    """
    if isinstance(value, Identified):
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
        named = {f.name: v for f, v in identity_fields(instance) if not _is_default(f, v)}
    return {name: jsonable(value, complete) for name, value in named.items()}


def identity_fields(instance: Any) -> Iterator[tuple[Field[Any], Any]]:
    """The fields of a dataclass instance that say what it is, with their values."""
    for field in fields(instance):
        if field.metadata.get("identity", True):
            yield field, getattr(instance, field.name)


def _is_default(field: Field[Any], value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    if field.default_factory is not MISSING:
        return bool(value == field.default_factory())
    return False
