"""Labels out: the files that ``weakteach label`` leaves with its user."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.preferences.pair import PREFERENCE_SCHEMA, QUARANTINE_SCHEMA, preference_groups
from weakteach.steps.data import Pairs
from weakteach.steps.labels import WeakLabels


def export(store: Store, few: Pairs, many: Pairs, weak: WeakLabels, out: Path) -> None:
    """Write labels.parquet, preferences.parquet (TRL's columns) and quarantine.parquet.

    Labels and preferences pass through memory a row group at a time.
    """
    out.mkdir(parents=True, exist_ok=True)
    labels = f"{store.path(weak)}/labels.parquet"
    fs.copy_files(labels, str(out / "labels.parquet"), source_filesystem=store.filesystem)
    schema = PREFERENCE_SCHEMA.remove(PREFERENCE_SCHEMA.get_field_index("pair_id"))
    groups = preference_groups(
        row_groups(store, many.all.file(store)), row_groups(store, labels, ["pair_id", "choice"])
    )
    with pq.ParquetWriter(out / "preferences.parquet", schema) as file:
        for group in groups:
            file.write_table(group.drop_columns(["pair_id"]))
    failed = quarantine_of(store, weak).to_pylist()
    unlabeled = [
        {"place": f"pair {row['pair_id']}", "reason": "not labeled", "detail": row["reason"]}
        for row in failed
    ]
    quarantines = [
        *(quarantine_of(store, pairs) for pairs in (few, many)),
        pa.Table.from_pylist(unlabeled, QUARANTINE_SCHEMA),
    ]
    pq.write_table(pa.concat_tables(quarantines), out / "quarantine.parquet")


def row_groups(store: Store, path: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    with store.filesystem.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns)


def quarantine_of(store: Store, step: Step) -> pa.Table:
    return pq.read_table(f"{store.path(step)}/quarantine.parquet", filesystem=store.filesystem)
