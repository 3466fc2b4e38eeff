"""Steps that read pairs from a source and split them into parts; steps that make a model usable.

All modules of this folder import heavy libraries inside ``compute``, since the processes that make
plans and drive clusters do not load torch.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import Store
from weakteach.models.resources import Resources
from weakteach.models.spec import EMBEDDED, Model, Tokenizer
from weakteach.preferences.pair import GROUP_ROWS, DataError, Pair
from weakteach.preferences.sources import Source
from weakteach.preferences.split import hold_out, split_pairs
from weakteach.preferences.table import write_pairs

TEXT_COLUMNS = ("prompt", "response_1", "response_2")

# What responds to prompts: a pretrained model, or the step that makes or trains one.
Policy = Model | Step


@dataclass(frozen=True)
class Part:
    """A table of pairs: the file ``<name>.parquet`` in the artifact of a step (Pairs, HeldOut or
    Split). The same artifact holds the human choices of the pairs in ``choices.parquet``."""

    step: Step
    name: str

    def file(self, store: Store) -> str:
        return f"{store.path(self.step)}/{self.name}.parquet"

    def read(self, store: Store, columns: list[str] | None = None) -> pa.Table:
        """Read all columns of the part, or those named, into memory."""
        return pq.read_table(self.file(store), columns=columns, filesystem=store.filesystem)

    def human_choices(self, store: Store) -> pa.Table:
        """A table ``pair_id, choice`` of the pairs of this part that a human labeled."""
        path = f"{store.path(self.step)}/choices.parquet"
        choices = pq.read_table(path, filesystem=store.filesystem)
        ids = self.read(store, ["pair_id"])
        return ids.join(choices, "pair_id", join_type="inner").sort_by("pair_id")


class Labels(Step):
    """Base class of steps that label pairs. The artifact holds ``labels.parquet`` with the columns
    ``pair_id, choice``, and with those of LABEL_SCHEMA if the labels come from rewards."""

    if TYPE_CHECKING:

        @property
        def part(self) -> Part:
            """The part whose pairs are labeled. Subclasses have it as a field or a property."""
            ...


@dataclass(frozen=True)
class Dequantized(Step):
    """A GGUF model, converted to an ordinary model folder in float32."""

    # 2: messages are read through the chat template that comes with it.
    VERSION = 2

    model: Model

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.models.loading import dequantize

        dequantize(self.model, workspace.out)
        return {"model": self.model.label}

    def __str__(self) -> str:
        return self.model.label


@dataclass(frozen=True)
class Converted(Step):
    """A model whose weights are pickled, converted to a plain model folder in the dtype of its
    weights."""

    model: Model

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.models.loading import write_converted

        write_converted(self.model, workspace.out)
        return {"model": self.model.label}

    def __str__(self) -> str:
        return self.model.label


@dataclass(frozen=True)
class Pretrained(Step):
    """An embedded model that is not shipped, pretrained within the study. The artifact is a model
    folder.

    It is trained on the first of the documents that the shipped models were trained on, usually far
    fewer of them. Compare it with models that were pretrained on as many documents (``opt-230k``
    can be, too), not with shipped ones, which differ in the amount of pretraining as well.
    """

    name: str
    documents: int
    seed: int = 0

    @property
    def model(self) -> Model:
        return Model(f"{EMBEDDED}{self.name}", self.name)

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.models.process import prepare_process
        from weakteach.models.tiny.pretraining import pretrained, write_model

        def told(done: int, steps: int, loss: float) -> None:
            if workspace.progress is not None:
                workspace.progress(done, steps)

        prepare_process(threads=1)  # sums over threads differ in their last bits
        model, record = pretrained(self.name, self.documents, self.seed, told)
        write_model(model, record, workspace.out)
        losses = {f"{k}_loss": loss for k, loss in record["held_out_losses"].items()}
        return {"parameters": record["parameters"], **losses}

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Pairs(Step):
    """The pairs of a source that have at most ``max_tokens`` tokens under each of the tokenizers,
    and whose messages, if they have any, are accepted by each chat template. Rows that are not
    usable are in ``quarantine.parquet``, with the reason."""

    # 2: contradictory choices are taken out, choices are read by file, rows.parquet is written.
    # 3: choices are read by all files of a source, rows.parquet tells who decided.
    VERSION = 3

    source: Source
    tokenizers: tuple[Tokenizer | Dequantized, ...]
    max_tokens: int = 512

    @property
    def all(self) -> Part:
        return Part(self, "pairs")

    def write(self, store: Store, out: Path) -> dict[str, Any]:
        """Write the tables into the folder ``out`` and return their counts (see
        ``write_pairs``)."""
        from weakteach.models.tokens import load_tokenizer, pair_lengths

        tokenizers = [
            load_tokenizer(t.location if isinstance(t, Tokenizer) else store.local(t))
            for t in self.tokenizers
        ]

        def count_tokens(pairs: list[Pair]) -> list[int | str]:
            counts = [pair_lengths(tok, pairs) for tok in tokenizers]
            return [
                next((n for n in lengths if isinstance(n, str)), None) or max(lengths)
                for lengths in zip(*counts, strict=True)
            ]

        return write_pairs(self.source.read(), out, self.source.name, count_tokens, self.max_tokens)

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        counts = self.write(workspace.store, workspace.out)
        if not counts["pairs"]:
            first = pq.read_table(workspace.out / "quarantine.parquet").slice(0, 1).to_pylist()
            why = "".join(f", the first ({row['place']}) for: {row['reason']}" for row in first)
            raise DataError(
                f"{self.source.name} holds no usable pair: all of its {counts['rows']} rows are in "
                f"quarantine{why}"
            )
        return counts


@dataclass(frozen=True)
class HeldOut(Step):
    """The pairs divided into a test part, a training part and, if ``gold_pairs`` is not 0, a part
    to train a gold model on. No prompt is in two parts. The division depends on no seed."""

    pairs: Pairs
    test_pairs: int
    gold_pairs: int = 0

    @property
    def test(self) -> Part:
        return Part(self, "test")

    @property
    def train(self) -> Part:
        return Part(self, "train")

    @property
    def set_aside(self) -> Part:
        """The part for gold models, which no teacher or student sees. Raises DataError if
        ``gold_pairs`` is 0."""
        if not self.gold_pairs:
            raise DataError("No pairs are set aside to train a gold model on: give gold_pairs")
        return Part(self, "set_aside")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        table = self.pairs.all.read(workspace.store)
        test, train = hold_out(table, self.test_pairs)
        parts = {"test": test, "train": train}
        if self.gold_pairs:
            parts["set_aside"], parts["train"] = hold_out(train, self.gold_pairs, "gold")
        return write_parts(workspace, self.pairs.all, parts)


@dataclass(frozen=True)
class Split(Step):
    """The training pairs divided into a labeled part, of this fraction, and an unlabeled one. No
    prompt is in both."""

    held_out: HeldOut
    fraction: Fraction
    seed: int

    @property
    def labeled(self) -> Part:
        return Part(self, "labeled")

    @property
    def unlabeled(self) -> Part:
        return Part(self, "unlabeled")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        table = self.held_out.train.read(workspace.store)
        labeled, unlabeled = split_pairs(table, self.fraction, self.seed)
        parts = {"labeled": labeled, "unlabeled": unlabeled}
        return write_parts(workspace, self.held_out.train, parts)


def write_parts(workspace: Workspace, whole: Part, parts: dict[str, pa.Table]) -> dict[str, Any]:
    """Write the parts that a whole was cut into, and its human choices beside them."""
    for name, table in parts.items():
        pq.write_table(table, workspace.out / f"{name}.parquet", row_group_size=GROUP_ROWS)
    pq.write_table(whole.human_choices(workspace.store), workspace.out / "choices.parquet")
    return {name: len(table) for name, table in parts.items()}


def labels_file(store: Store, labels: Labels) -> str:
    return f"{store.path(labels)}/labels.parquet"


def read_labels(store: Store, labels: Labels) -> pa.Table:
    return pq.read_table(labels_file(store, labels), filesystem=store.filesystem)


def resources_of(workspace: Workspace) -> Resources:
    return workspace.execution or Resources()
