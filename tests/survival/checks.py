"""What a study that was disturbed must have in common with one that was not."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import RECORD, Store
from weakteach.steps.data import Labels

# Names of what is there only while something is being written.
TEMPORARY = (".stage", ".scratch", ".partial", ".lease")


def artifact_files(store: Store, steps: Iterable[Step]) -> dict[str, bytes]:
    """Content of all files of the steps' artifacts but the records, which tell times."""
    found = {}
    for step in steps:
        folder = Path(store.path(step))
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.name != RECORD:
                found[f"{type(step).__name__}/{step.fingerprint}/{file.relative_to(folder)}"] = (
                    file.read_bytes()
                )
    return found


def differing(calm: dict[str, bytes], disturbed: dict[str, bytes]) -> list[str]:
    """Files that are in one alone, or not the same in both."""
    return sorted(
        name for name in calm.keys() | disturbed.keys() if calm.get(name) != disturbed.get(name)
    )


def unsound_labels(store: Store, steps: Iterable[Step]) -> list[str]:
    """Label tables that do not hold exactly one row for each pair that they are of."""
    found = []
    for step in steps:
        if not isinstance(step, Labels):
            continue
        labels = pq.read_table(f"{store.path(step)}/labels.parquet")["pair_id"].to_pylist()
        pairs = step.part.read(store, ["pair_id"])["pair_id"].to_pylist()
        if len(labels) != len(pairs) or set(labels) != set(pairs):
            found.append(f"{step}: {len(labels)} rows for {len(pairs)} pairs")
    return found


def leases(store: Store) -> list[str]:
    return sorted(path.name for path in Path(store.root, ".leases").glob("*"))


def leftovers(store: Store) -> list[str]:
    """Paths under the storage that are there only while something is being written."""
    return sorted(
        str(path.relative_to(store.root))
        for path in Path(store.root).rglob("*")
        if path.name.endswith(TEMPORARY) and ".leases" not in path.parts
    )


def incomplete(store: Store, steps: Iterable[Step]) -> list[str]:
    """Artifacts that a folder is there of, but no record, or a record, but not of this step."""
    found = []
    for step in steps:
        record = store.record(step)
        if record is None or record["fingerprint"] != step.fingerprint:
            found.append(str(step))
    return found
