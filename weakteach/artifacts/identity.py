"""The identity of a step: what it computes, apart from where and how. Its hash is the fingerprint.

A field that has its default value is left out of the fingerprint, so that a class can get a new
field and old artifacts stay valid. The price: if a default is changed, the fingerprint stays the
same. So raise the VERSION of the class then, be it the class of a step or of a value inside one,
such as a recipe. The class of such a value needs no VERSION before its first change:

    VERSION: ClassVar[int] = 2
"""

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
    """A frozen dataclass with a fingerprint. Artifacts are found by the name of the class and the
    fingerprint. See ``step.Step``, which is the only subclass.

    Raise ``VERSION`` if the same fields lead to a different artifact than before, or if the default
    of a field changes.
    """

    VERSION: ClassVar[int] = 1

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The JSON object whose hash is the fingerprint. In it, input steps are fingerprints."""
        return {"step": type(self).__name__, "version": self.VERSION, **_parameters(self)}

    @property
    def parameters(self) -> dict[str, Any]:
        """All fields as JSON values, also those that are not part of the identity: fields at their
        default, and names and paths."""
        return _parameters(self, complete=True)

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the identity. Equal steps have equal fingerprints, in every process and every
        version of Python."""
        text = json.dumps(self.identity, sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]

    def __str__(self) -> str:
        return f"{type(self).__name__}/{self.fingerprint}"


def jsonable(value: Any, complete: bool = False) -> Any:
    """The canonical JSON form of a parameter. Equal values have equal forms.

    With ``complete``, dataclasses are shown with all of their fields. Raises TypeError for what
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
        version = {"version": _version(value)} if _version(value) > 1 else {}
        return {"class": type(value).__name__, **version, **_parameters(value, complete)}
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
        named = {f.name: v for f, v in identity_fields(instance) if not _is_left_out(f, v)}
    return {name: jsonable(value, complete) for name, value in named.items()}


def identity_fields(instance: Any) -> Iterator[tuple[Field[Any], Any]]:
    """The fields of a dataclass instance that are part of its identity, with their values."""
    for field in fields(instance):
        if field.metadata.get("identity", True):
            yield field, getattr(instance, field.name)


def _is_left_out(field: Field[Any], value: Any) -> bool:
    """Whether the value is the field's default, and no class inside it has a raised VERSION.
    (If one has, a default of that class has changed, so the value stands for something new.)"""
    if field.default is not MISSING:
        default = field.default
    elif field.default_factory is not MISSING:
        default = field.default_factory()
    else:
        return False
    return bool(value == default) and not _holds_raised_version(value)


def _holds_raised_version(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_holds_raised_version, value))
    if is_dataclass(value) and not isinstance(value, type):
        inner = (item for _, item in identity_fields(value))
        return _version(value) > 1 or any(map(_holds_raised_version, inner))
    return False


def _version(value: Any) -> int:
    return int(getattr(value, "VERSION", 1))
