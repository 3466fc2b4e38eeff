"""Records: how they are sealed, read and checked, and the versions that they hold.

A store may be damaged, or filled by others, so nothing that is read is taken on trust.
"""

import hashlib
import json
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import weakteach
from weakteach.artifacts.errors import StorageError

NAME = re.compile(r"[\w-]+", re.ASCII)
DIGEST = "digest"
# Counted from 1970, this time is reached in the year 9892; and no step takes as long.
MOST_SECONDS = 2.5e11
RECORDED_PACKAGES = (
    "torch", "transformers", "trl", "peft", "ray", "datasets", "pyarrow", "tokenizers", "numpy",
)  # fmt: skip


def stored_name(name: Any) -> str:
    """Return the name (of a step's class, a fingerprint or a study) if it can be part of a path.

    Raises StorageError if it cannot, since such a path might lead out of the store.
    """
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise StorageError(f"{name!a:.80} cannot be a name in a store: letters, digits, - and _ alone")


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Add to the record a digest of its other entries, by which damage is noticed."""
    return {**record, DIGEST: digest_of(record)}


def digest_of(record: dict[str, Any]) -> str:
    """The hash of all entries of the record but the digest itself. If a step is computed twice, its
    two artifacts have different digests."""
    plain = json.loads(json.dumps({k: v for k, v in record.items() if k != DIGEST}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:20]


def parse_record(data: bytes, kind: str, fingerprint: str) -> dict[str, Any]:
    """Read the record of ``<kind>/<fingerprint>`` from the content of its file.

    Raises StorageError if it is damaged. Old records hold no digest, which is no damage.
    """
    try:
        record = json.loads(data)
        problem = _problem(record, kind, fingerprint)
    except (ValueError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    if problem:
        raise StorageError(
            f"The record of {kind}/{fingerprint} is damaged ({problem}): delete that folder of the "
            "storage, and the step is computed again"
        )
    return record


def _problem(record: Any, kind: str, fingerprint: str) -> str | None:
    if not isinstance(record, dict):
        return "no JSON object"
    if (record.get("step"), record.get("fingerprint")) != (kind, fingerprint):
        return "of another step"
    for name in ("facts", "parameters"):
        if not isinstance(record.get(name), dict):
            return f"{name} is no object"
    for name in ("started", "seconds", "device_seconds"):
        if not is_number(record.get(name)) or not abs(record[name]) < MOST_SECONDS:
            return f"{name} is no number of seconds"
    inputs = record.get("inputs")
    if not isinstance(inputs, list) or not all(map(_is_reference, inputs)):
        return "inputs are no list of steps"
    if DIGEST in record and record[DIGEST] != digest_of(record):
        return "its digest does not fit"
    return None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), str) and NAME.fullmatch(value[name])
        for name in ("step", "fingerprint")
    )


@cache
def package_versions() -> dict[str, str]:
    found = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_version() -> dict[str, str]:
    """The version of the package and a hash of its source, which differs between commits."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode() + source.read_bytes())
    return {"version": weakteach.__version__, "source": digest.hexdigest()[:12]}
