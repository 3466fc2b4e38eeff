"""Exports labels: the files that ``weakteach label`` writes for its user, in the user's terms.

Every column says what it holds in the ``doc`` of its Parquet field. Labels and preferences pass
through memory a row group at a time.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.errors import StorageError, UserError, printable
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.labeling.forms import FORMS
from weakteach.labeling.weights import Weighting, with_probability, with_weight
from weakteach.preferences.conversational import COLUMNS, FREE, messages_type, messages_value
from weakteach.preferences.pair import GROUP_ROWS, QUARANTINE_SCHEMA, DataError, preference
from weakteach.steps.data import TEXT_COLUMNS, Pairs, labels_file, read_labels
from weakteach.steps.labels import WeakLabels

RUN, QUARANTINE, CARD = "run.json", "quarantine.parquet", "README.md"
LABELS, PREFERENCES = "labels.parquet", "preferences.parquet"
# Files of a run that came to its end; OUTPUTS adds those that a failed run may have left, too.
RESULTS = (LABELS, PREFERENCES, "verdict.json", "report.html", *FORMS)
OUTPUTS = (*RESULTS, CARD, QUARANTINE, RUN)


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


ROW = _field("row", pa.int64(), "Number of the row in the input, from 0 and over all its files")
ID = _field("id", pa.string(), "The row's own id in the input or, where it has none, its place")
PLACE = _field("place", pa.string(), "Where the row stands: file and line, or row")
PAIR_ID = _field("pair_id", pa.string(), "Hash of the pair's texts, whatever their order")
MARGIN = _field("margin", pa.float64(), "Reward of the chosen response minus the other's, from 0")
CONFIDENCE = _field(
    "confidence", pa.float64(), "2·(sigmoid(margin) - 0.5), in [0, 1]: what the teacher claims"
)
PROBABILITY = _field(
    "probability",
    pa.float64(),
    "How likely a human makes the same choice, in [0.5, 1): calibrated on held-out human choices",
)
WEIGHT = _field(
    "weight", pa.float64(), "How much the pair should count in a loss, by its margin: see README.md"
)
LABELS_OUT = pa.schema(
    [
        ROW,
        ID,
        PLACE,
        _field("choice", pa.int8(), "The response chosen: 1 is the row's first, 2 its second"),
        _field("chosen_column", pa.string(), "Column of the input that holds that response"),
        _field("chosen", pa.string(), "Its text, where columns say which is chosen; else null"),
        _field("rejected", pa.string(), "The other response's text, likewise"),
        MARGIN,
        CONFIDENCE,
        PROBABILITY,
        PAIR_ID,
        _field(
            "canonical_choice",
            pa.int8(),
            "The choice, 1 or 2, in the order that is drawn from pair_id instead of the row's",
        ),
        _field("canonical_reward_1", pa.float64(), "Reward of the first response in that order"),
        _field("canonical_reward_2", pa.float64(), "Reward of the second response in that order"),
    ]
)  # fmt: skip
TOOLS = _field("tools", pa.string(), "The tools that may be called, as JSON; null where none may")


def preferences_schema(messages: pa.DataType | None, tools: bool) -> pa.Schema:
    """The schema of preferences whose prompt, chosen and rejected are messages of the given type
    or, without one, texts. ``tools`` says whether there is a column for tools."""
    kind = messages or pa.string()
    return pa.schema(
        [
            ID,
            PAIR_ID,
            _field("prompt", kind, "What both responses answer"),
            _field("chosen", kind, "The response that the teacher chose"),
            _field("rejected", kind, "The response that it did not choose"),
            *([TOOLS] if tools else []),
            MARGIN,
            CONFIDENCE,
            PROBABILITY,
            WEIGHT,
        ]
    )


@dataclass(frozen=True)
class Exporting:
    """How labels are exported. The teacher's ``temperature`` sets their probabilities,
    ``weighting`` their weights; pairs of less than ``min_confidence`` or ``min_margin`` are left
    out of the preferences. ``about`` is what both files say of themselves in their metadata.
    Preferences are in TRL's conversational form if all pairs have messages, unless they are wanted
    ``as_text``."""

    temperature: float
    weighting: Weighting
    min_confidence: float = 0.0
    min_margin: float = 0.0
    about: str = "{}"
    as_text: bool = False

    def is_sure(self, pair: Mapping[str, Any]) -> bool:
        confidence, margin = pair["confidence"], abs(pair["margin"])
        return bool(confidence >= self.min_confidence and margin >= self.min_margin)

    def table(self, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        """The rows with their probabilities and, where the schema has them, their weights."""
        # JSON is text until it is cast.
        text = pa.list_(pa.string())
        fields = [
            field.with_type(text) if field.type == FREE else field
            for field in schema
            if field not in (PROBABILITY, WEIGHT)
        ]
        table = pa.Table.from_pylist(rows, pa.schema(fields))
        table = with_probability(table, self.temperature)
        if "weight" in schema.names:
            table = with_weight(table, self.weighting)
        return table.select(schema.names).cast(schema)


@dataclass(frozen=True)
class Exported:
    """The numbers of rows that have a label, of pairs in the preferences, and of pairs left out of
    these because the teacher is not sure enough. ``mixed`` says that the preferences are texts
    because some pairs have messages and others none."""

    labels: int
    preferences: int
    unsure: int
    mixed: bool


def check_out(
    out: Path, run: Mapping[str, Any], overwrite: bool, inputs: Iterable[str] = ()
) -> None:
    """Check that the files can be written into the folder, that results in it are of the same
    ``run`` or may be overwritten, and that no file to write is one of the ``inputs``, which are
    paths of files and folders, or lies in one of them. Raises UserError."""
    shown = printable(str(out))
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise StorageError(f"--out {shown}: {printable(str(there))} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"--out {shown} cannot be written: {there} gives no leave to")
    own = {(out / name).resolve() for name in OUTPUTS}
    within = {folder for file in own for folder in file.parents}
    for name in inputs:
        path = Path(name).resolve()
        if path in own:
            raise UserError(
                f"--out {shown}: {printable(name)} lies there under the name of a file that would "
                "be written: give another folder"
            )
        if path in within:
            raise UserError(
                f"--out {shown} lies in {printable(name)}, all of which is read: give another "
                "folder, or name the files to read"
            )
    found = [name for name in RESULTS if (out / name).exists()]
    if found and not overwrite and _run_of(out) != run:
        raise UserError(
            f"--out {shown} holds {found[0]} of another run: give another folder, or --overwrite"
        )


def _run_of(out: Path) -> Any:
    try:
        return json.loads((out / RUN).read_text())
    except (OSError, ValueError):
        return None


def begin(out: Path, run: Mapping[str, Any]) -> None:
    """Make the folder and write into it which run its files are of. Files of another run, and
    the verdict's figures of any run, are deleted."""
    out.mkdir(parents=True, exist_ok=True)
    if _run_of(out) != run:
        drop(out, OUTPUTS)
    for stale in (out / "figures").glob("verdict-*.png"):
        stale.unlink()
    (out / RUN).write_text(json.dumps(run, indent=1) + "\n")


def drop(out: Path, names: Iterable[str]) -> None:
    """Delete those of the files that are in the folder."""
    for name in names:
        (out / name).unlink(missing_ok=True)


def export(
    store: Store, many: Pairs, weak: WeakLabels, out: Path, exporting: Exporting
) -> Exported:
    """Write labels.parquet, with one line for each row of the input that has a label, in the order
    of the input, and preferences.parquet (TRL's columns and more), with one line for each pair of
    which the teacher is sure enough."""
    kind, tools, mixed = None, False, False
    if not exporting.as_text:
        kind, tools, mixed = _messages_of(store, many)
    schemas = {LABELS: LABELS_OUT, PREFERENCES: preferences_schema(kind, tools)}
    about = {"weakteach": exporting.about}
    counts, pairs = dict.fromkeys(schemas, 0), 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=out, prefix=".writing-")))
        files = {
            name: stack.enter_context(pq.ParquetWriter(folder / name, schema.with_metadata(about)))
            for name, schema in schemas.items()
        }
        for chunk in _chunks(labeled_rows(store, many, weak)):
            first = [(row, pair) for row, pair, is_first in chunk if is_first]
            pairs += len(first)
            rows = {
                LABELS: [_label(row, pair) for row, pair, _ in chunk],
                PREFERENCES: [
                    _preference(row, pair, kind) for row, pair in first if exporting.is_sure(pair)
                ],
            }
            for name, schema in schemas.items():
                files[name].write_table(exporting.table(rows[name], schema))
                counts[name] += len(rows[name])
        for name, file in files.items():
            file.close()
            (folder / name).replace(out / name)
    return Exported(counts[LABELS], counts[PREFERENCES], pairs - counts[PREFERENCES], mixed)


def least_margin(store: Store, weak: WeakLabels, share: float) -> float:
    """The least margin among the ``share`` of labels that have the largest margins."""
    margins = np.sort(np.abs(read_labels(store, weak)["margin"].to_numpy()))
    return float(margins[-max(1, round(share * len(margins)))])


def _messages_of(store: Store, many: Pairs) -> tuple[pa.DataType | None, bool, bool]:
    """The type of the pairs' messages, whether any of them may call tools, and whether some have
    messages and others none."""
    has_tools = False

    def pairs() -> Iterator[dict[str, Any]]:
        nonlocal has_tools
        for row in _rows(store, many.all.file(store), [*COLUMNS, "tools"]):
            has_tools = has_tools or row["tools"] is not None
            yield row

    try:
        kind = messages_type(pairs())
    except ValueError:
        return None, False, True
    return kind, has_tools and kind is not None, False


def write_quarantine(
    store: Store, files: Iterable[Pairs], weak: WeakLabels | None, out: Path
) -> None:
    """Write quarantine.parquet: rows of the files that are no pairs and, once there are labels,
    pairs that could not be labeled."""
    tables = [_quarantine_of(store, pairs) for pairs in files]
    failed = [] if weak is None else _quarantine_of(store, weak).to_pylist()
    unlabeled = [
        {"place": f"pair {row['pair_id']}", "reason": "not labeled", "detail": row["reason"]}
        for row in failed
    ]
    tables.append(pa.Table.from_pylist(unlabeled, QUARANTINE_SCHEMA))
    pq.write_table(pa.concat_tables(tables), out / QUARANTINE)


def quarantine_anew(files: Iterable[Callable[[Path], Any]], out: Path) -> None:
    """Write quarantine.parquet for files whose pairs are not artifacts of the store. Each function
    writes the tables of one file into a folder, as ``write_pairs`` does."""
    tables = []
    for write in files:
        with TemporaryDirectory(prefix="weakteach-") as name:
            write(Path(name))
            tables.append(pq.read_table(f"{name}/{QUARANTINE}"))
    pq.write_table(pa.concat_tables(tables), out / QUARANTINE)


Labeled = tuple[dict[str, Any], dict[str, Any], bool]


def labeled_rows(store: Store, many: Pairs, weak: WeakLabels) -> Iterator[Labeled]:
    """Each row of the input that has a label, in order: the row (ROW_SCHEMA), its pair with its
    label, and whether it is the first row of that pair.

    Pairs and labels stand in the order of the rows, so only the labels of pairs that come again
    are kept in memory. Raises DataError for labels in another order.
    """
    rows = f"{store.path(many)}/rows.parquet"
    repeated = {
        row["pair_id"]
        for row in _rows(store, rows, ["pair_id", "reason"])
        if row["reason"] == "duplicate pair"
    }
    known: dict[str, dict[str, Any]] = {}
    labeled = _labeled_pairs(store, many, weak)
    pair = next(labeled, None)
    for row in _rows(store, rows):
        is_first = pair is not None and row["pair_id"] == pair["pair_id"]
        if is_first:
            assert pair is not None
            if pair["pair_id"] in repeated:
                known[pair["pair_id"]] = pair
            yield row, pair, True
            pair = next(labeled, None)
        elif row["pair_id"] in known:
            yield row, known[row["pair_id"]], False
    if pair is not None:
        raise DataError(f"The label of {pair['pair_id']} has no row, or is out of order")


def _labeled_pairs(store: Store, many: Pairs, weak: WeakLabels) -> Iterator[dict[str, Any]]:
    labels = _rows(store, labels_file(store, weak))
    label = next(labels, None)
    columns = ["pair_id", *TEXT_COLUMNS, *COLUMNS, "tools"]
    for pair in _rows(store, many.all.file(store), columns):
        if label is not None and label["pair_id"] == pair["pair_id"]:
            yield pair | label
            label = next(labels, None)
    if label is not None:
        raise DataError(f"The label of {label['pair_id']} has no pair, or is out of order")


def _label(row: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    choice = 3 - pair["choice"] if row["swapped"] else pair["choice"]
    names = (row["first"], row["second"])
    chosen, rejected = _texts(pair) if row["decided"] else (None, None)
    return {
        "row": row["row"],
        "id": _key(row),
        "place": row["place"],
        "choice": choice,
        "chosen_column": names[choice - 1],
        "chosen": chosen,
        "rejected": rejected,
        "margin": abs(pair["margin"]),
        "confidence": pair["confidence"],
        "pair_id": pair["pair_id"],
        "canonical_choice": pair["choice"],
        "canonical_reward_1": pair["reward_1"],
        "canonical_reward_2": pair["reward_2"],
    }


def _preference(
    row: Mapping[str, Any], pair: Mapping[str, Any], kind: pa.DataType | None
) -> dict[str, Any]:
    found = preference(pair, pair["choice"])
    if kind is not None:
        sides = ("prompt", "chosen", "rejected")
        found |= {name: messages_value(found[f"{name}_messages"], kind) for name in sides}
    return {
        **{name: found[name] for name in ("pair_id", "prompt", "chosen", "rejected", "tools")},
        "id": _key(row),
        "margin": abs(pair["margin"]),
        "confidence": pair["confidence"],
    }


def _key(row: Mapping[str, Any]) -> str:
    return str(row["place"] if row["id"] is None else row["id"])


def _texts(pair: Mapping[str, Any]) -> tuple[str, str]:
    """The texts of the chosen and of the rejected response."""
    texts = pair["response_1"], pair["response_2"]
    return texts if pair["choice"] == 1 else texts[::-1]


def _chunks(items: Iterator[Labeled]) -> Iterator[list[Labeled]]:
    while chunk := list(islice(items, GROUP_ROWS)):
        yield chunk


def _rows(store: Store, path: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    with store.filesystem.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            yield from parquet.read_row_group(group, columns).to_pylist()


def _quarantine_of(store: Store, step: Step) -> pa.Table:
    return pq.read_table(f"{store.path(step)}/{QUARANTINE}", filesystem=store.filesystem)
