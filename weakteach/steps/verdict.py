"""Steps that judge a teacher before any student is trained, on pairs that humans labeled.

The labeled pairs are cut into folds, in one round or several, each time anew. For each fold a
teacher is trained on the pairs of the other folds and labels the pairs of this one, both by
ordinary steps; ``Verdict`` reads these labels. Pairs of one prompt, and near-duplicates, share a
fold.

scipy, which facts are computed with, is imported only where that is done, since plans import this
module, too.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weakteach.artifacts.step import Step, Workspace
from weakteach.artifacts.store import Store
from weakteach.preferences.pair import DataError
from weakteach.steps.data import TEXT_COLUMNS, Part, read_labels, write_parts
from weakteach.steps.labels import HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead

if TYPE_CHECKING:
    from weakteach.evaluation.judged import Judged
    from weakteach.evaluation.teaching import Slice, TeacherFacts

Teacher = Dpo | RewardHead
# From human labels to the teacher that is trained on them.
Training = Callable[[HumanLabels], Teacher]


@dataclass(frozen=True)
class Folds(Step):
    """Folds drawn for the pairs of ``part`` that humans labeled. ``folds.parquet`` holds
    ``pair_id``, ``source``, ``choice``, ``longer`` (the response with more characters, 0 for
    neither), ``group`` and, for each round r, ``fold_r``."""

    part: Part
    folds: int
    repeats: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1:
            raise DataError(
                f"{self.folds} folds, {self.repeats} times: give at least 2 folds, once"
            )

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.preferences.duplicates import groups

        store = workspace.store
        choices = self.part.human_choices(store)
        table = self.part.read(store, ["pair_id", *TEXT_COLUMNS, "source"])
        table = table.join(choices, "pair_id", join_type="inner").sort_by("pair_id")
        group = groups(table)
        count = len(np.unique(group))
        if count < self.folds:
            raise DataError(
                f"The {self.part.name} part has {len(table)} labeled pairs of {count} different "
                f"prompts, too few for {self.folds} folds: give more labeled pairs"
            )
        lengths = [[len(t) for t in table[n].to_pylist()] for n in ("response_1", "response_2")]
        longer = [1 if a > b else 2 if b > a else 0 for a, b in zip(*lengths, strict=True)]
        columns = {
            "pair_id": table["pair_id"],
            "source": table["source"],
            "choice": table["choice"],
            "longer": pa.array(longer, pa.int8()),
            "group": pa.array(group, pa.int32()),
        }
        ids = table["pair_id"].to_pylist()
        for number in range(self.repeats):
            drawn = draw_folds(ids, group, self.folds, f"{self.seed} {number}")
            columns[f"fold_{number}"] = pa.array(drawn, pa.int32())
        pq.write_table(pa.table(columns), workspace.out / "folds.parquet")
        return {"pairs": len(table), "groups": count}


@dataclass(frozen=True)
class Fold(Step):
    """One fold of one round, held out, and groups of the other folds to train on. These groups hold
    at least a ``share`` of the other folds' pairs; the groups of a smaller share are among those of
    a larger one."""

    folds: Folds
    repeat: int
    number: int
    share: Fraction = Fraction(1)

    @property
    def held_out(self) -> Part:
        return Part(self, "held_out")

    @property
    def train(self) -> Part:
        return Part(self, "train")

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        drawn = read_folds(workspace.store, self.folds)
        out = drawn[f"fold_{self.repeat}"].to_numpy() == self.number
        ids, group = np.array(drawn["pair_id"].to_pylist()), drawn["group"].to_numpy()
        kept = ~out & _first_groups(ids, group, ~out, self.share, str(self.folds.seed))
        part = self.folds.part
        table = part.read(workspace.store)
        parts = {
            name: table.filter(pa.array(np.isin(table["pair_id"].to_pylist(), ids[rows])))
            for name, rows in (("held_out", out), ("train", kept))
        }
        return write_parts(workspace, part, parts)


@dataclass(frozen=True)
class CrossFitted:
    """Labels of every fold, by teachers that were trained on the other folds. ``labels`` are in the
    order of rounds and folds; ``smaller`` holds the same for each share of the training pairs, by
    teachers that were trained on that share."""

    model: str
    seed: int
    labels: tuple[WeakLabels, ...]
    smaller: tuple[tuple[WeakLabels, ...], ...] = ()

    def name_beside(self, teacher: "CrossFitted") -> str:
        """What this rival of ``teacher`` is called: its model, with the seed if the model is the
        same."""
        return f"{self.model}, seed {self.seed}" if self.model == teacher.model else self.model


def cross_fitted(
    model: str, seed: int, folds: Folds, train: Training, shares: Iterable[Fraction] = ()
) -> CrossFitted:
    """The steps that cross-fit a teacher: one training for each fold and round, and as many again
    for each of the ``shares``, which are below 1."""

    def labels(share: Fraction) -> tuple[WeakLabels, ...]:
        all_folds = (
            Fold(folds, repeat, number, share)
            for repeat in range(folds.repeats)
            for number in range(folds.folds)
        )
        trained = ((train(HumanLabels(fold.train)), fold.held_out) for fold in all_folds)
        return tuple(WeakLabels(teacher, part, teacher.dtype) for teacher, part in trained)

    return CrossFitted(model, seed, labels(Fraction(1)), tuple(labels(s) for s in sorted(shares)))


@dataclass(frozen=True)
class Verdict(Step):
    """The facts of a teacher (``teaching.TeacherFacts``) in ``verdict.json``, and the pairs behind
    them in ``pairs.parquet`` (``judged.pairs_table``).

    ``rivals`` are other teachers on the same folds. ``elsewhere`` are labels of pairs of other
    domains that have human choices, by the teacher trained on all pairs. The learning curve says
    how many labels an accuracy of ``wanted`` takes.
    """

    # 2: the rivals' κ is over all rounds, and its interval allows for shared training pairs.
    # 3: the learning curve counts pairs, not prompts; ties are broken; intervals of few prompts, of
    # calibration and of its gains are wider; how many independent pairs its pairs are worth.
    VERSION = 3

    folds: Folds
    teacher: CrossFitted
    rivals: tuple[CrossFitted, ...] = ()
    elsewhere: tuple[WeakLabels, ...] = ()
    wanted: float = 0.7

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.evaluation.judged import pairs_table
        from weakteach.evaluation.teaching import teacher_facts, to_json

        store = workspace.store
        drawn = read_folds(store, self.folds)
        fits = [self.teacher.labels, *self.teacher.smaller, *(r.labels for r in self.rivals)]
        margins = [_margins(store, self.folds, drawn, labels) for labels in fits]
        # All teachers are judged on the same pairs.
        known: np.ndarray = np.isfinite(np.stack(margins)).all(axis=(0, 1))
        judged, *others = (_judged(self.folds, drawn, fit, known) for fit in margins)
        curve = others[: len(self.teacher.smaller)]
        trained = trained_pairs(store, self.folds.part)
        facts = teacher_facts(
            teacher=self.teacher.model,
            judged=judged,
            training_pairs=_training_pairs(store, self.teacher.labels),
            wanted=self.wanted,
            smaller={
                _training_pairs(store, labels): fit
                for labels, fit in zip(self.teacher.smaller, curve, strict=True)
            },
            rivals=[
                (rival.name_beside(self.teacher), rival.model == self.teacher.model, fit)
                for rival, fit in zip(self.rivals, others[len(curve) :], strict=True)
            ],
            transfer=[_transfer(store, labels, trained) for labels in self.elsewhere],
        )
        text = json.dumps(to_json(facts), indent=1, sort_keys=True)
        (workspace.out / "verdict.json").write_text(text)
        table = pairs_table(judged, facts.temperature)
        pq.write_table(table, workspace.out / "pairs.parquet")
        return {
            "pairs": facts.pairs,
            "unlabeled_pairs": int((~known).sum()),
            "accuracy": facts.accuracy.value,
            "low": facts.accuracy.low,
            "high": facts.accuracy.high,
            "temperature": facts.temperature,
            "ece_before": facts.before.ece,
            "ece_after": facts.after.ece,
        }


def trained_pairs(store: Store, part: Part) -> pa.Table:
    """The texts of the pairs of a part that have human choices."""
    human = part.human_choices(store).select(["pair_id"])
    return part.read(store, ["pair_id", *TEXT_COLUMNS]).join(human, "pair_id", join_type="inner")


def write_seen(workspace: Workspace, trained: pa.Table, labels: WeakLabels) -> pa.Table:
    """How a teacher trained on the pairs ``trained`` has seen the pairs that it labeled: a table of
    ``pair_id, choice, seen, prompt`` (its number) and ``human`` (0 for none). Also writes
    ``seen.parquet``, with all pairs of the part, which are read a row group at a time."""
    from weakteach.preferences.duplicates import prompt_numbers, recognizer

    store, part = workspace.store, labels.part
    how, tell = [], recognizer(trained)
    schema = pa.schema([("pair_id", pa.string()), ("seen", pa.string())])
    with (
        store.filesystem.open_input_file(part.file(store)) as source,
        pq.ParquetWriter(workspace.out / "seen.parquet", schema) as out,
    ):
        pairs = pq.ParquetFile(source)
        for number in range(pairs.num_row_groups):
            chunk = pairs.read_row_group(number, ["pair_id", *TEXT_COLUMNS])
            told = pa.table([chunk["pair_id"], tell(chunk).tolist()], schema=schema)
            out.write_table(told)
            how.append(told.append_column("prompt", pa.array(prompt_numbers(chunk))))
    human = part.human_choices(store).rename_columns(["pair_id", "human"])
    weak = read_labels(store, labels).select(["pair_id", "choice"])
    joined = weak.join(pa.concat_tables(how), "pair_id", join_type="inner")
    joined = joined.join(human, "pair_id", join_type="left outer").sort_by("pair_id")
    return joined.set_column(
        joined.column_names.index("human"), "human", joined["human"].fill_null(0)
    )


@dataclass(frozen=True)
class NewToTeacher(Step):
    """Which of the pairs that it labeled a teacher trained on the part ``trained`` has seen, and
    how often its labels agree with human choices on the others. The facts are those of
    ``teaching.Seen``; ``seen.parquet`` says how each pair was seen."""

    # 2: near-duplicates are left out of the agreement, too. 3: pairs of one prompt may count as
    # fewer in its interval. 4: so may those of few prompts.
    VERSION = 4

    labels: WeakLabels
    trained: Part

    def compute(self, workspace: Workspace) -> dict[str, Any]:
        from weakteach.evaluation.teaching import seen_facts, to_json

        table = write_seen(workspace, trained_pairs(workspace.store, self.trained), self.labels)
        ways = np.array(table["seen"].to_pylist(), dtype=object)
        human = table["human"].to_numpy()
        right = human == table["choice"].to_numpy()
        prompt = table["prompt"].to_numpy()
        facts: dict[str, Any] = to_json(seen_facts(ways, right, human > 0, prompt))
        return facts


def read_folds(store: Store, folds: Folds) -> pa.Table:
    return pq.read_table(f"{store.path(folds)}/folds.parquet", filesystem=store.filesystem)


def read_facts(store: Store, verdict: Verdict) -> "TeacherFacts":
    from weakteach.evaluation.teaching import facts_from_json

    with store.filesystem.open_input_file(f"{store.path(verdict)}/verdict.json") as file:
        return facts_from_json(file.read())


def draw_folds(ids: Sequence[str], group: np.ndarray, folds: int, seed: str) -> np.ndarray:
    """The fold of each pair [pairs]. Groups go, one after another, to the fold that holds the
    fewest pairs, in an order drawn from the seed and the smallest pair id of each."""
    held = [0] * folds
    drawn = np.empty(len(ids), dtype=np.int32)
    for number in _order(ids, group, f"fold {seed}"):
        fold = held.index(min(held))
        inside = group == number
        drawn[inside] = fold
        held[fold] += int(inside.sum())
    return drawn


def _first_groups(
    ids: np.ndarray, group: np.ndarray, among: np.ndarray, share: Fraction, seed: str
) -> np.ndarray:
    """Which pairs [pairs] are in the first groups, in an order drawn from the seed, that together
    hold ``share`` of the pairs ``among`` [pairs]."""
    kept, wanted = np.zeros(len(ids), dtype=bool), float(share) * among.sum()
    for number in _order(ids[among].tolist(), group[among], f"share {seed}"):
        if kept.sum() >= wanted:
            break
        kept |= among & (group == number)
    return kept


def _order(ids: Sequence[str], group: np.ndarray, seed: str) -> list[int]:
    """The groups in an order drawn from the seed."""
    first: dict[int, str] = {}
    for pair_id, number in zip(ids, group.tolist(), strict=True):
        first[number] = min(pair_id, first.get(number, pair_id))
    return sorted(
        first, key=lambda number: hashlib.sha256(f"{seed} {first[number]}".encode()).digest()
    )


def _margins(
    store: Store, folds: Folds, drawn: pa.Table, labels: Sequence[WeakLabels]
) -> np.ndarray:
    """Margins [repeats, pairs], NaN where a pair could not be labeled."""
    place = {pair_id: row for row, pair_id in enumerate(drawn["pair_id"].to_pylist())}
    margins = np.full((folds.repeats, len(place)), np.nan)
    for turn, step in enumerate(labels):
        table = read_labels(store, step)
        rows = [place[pair_id] for pair_id in table["pair_id"].to_pylist()]
        margins[turn // folds.folds, rows] = table["margin"].to_numpy()
    return margins


def _judged(folds: Folds, drawn: pa.Table, margins: np.ndarray, known: np.ndarray) -> "Judged":
    """The pairs that are ``known`` [pairs] with these ``margins`` [repeats, pairs]."""
    from weakteach.evaluation.judged import Judged

    rounds = [drawn[f"fold_{number}"].to_numpy() for number in range(folds.repeats)]
    return Judged(
        pair_id=np.array(drawn["pair_id"].to_pylist(), dtype=object)[known],
        source=np.array(drawn["source"].to_pylist(), dtype=object)[known],
        group=drawn["group"].to_numpy()[known],
        human=drawn["choice"].to_numpy()[known],
        longer=drawn["longer"].to_numpy()[known],
        margin=margins[:, known],
        fold=np.stack(rounds)[:, known],
        folds=folds.folds,
    )


def _training_pairs(store: Store, labels: Sequence[WeakLabels]) -> int:
    """The mean number of pairs that the teachers of these labels were trained on."""
    counts = [len(read_labels(store, label.teacher.labels)) for label in labels]
    return round(sum(counts) / len(counts))


def _transfer(store: Store, labels: WeakLabels, trained: pa.Table) -> "Slice":
    """Accuracy on pairs of another domain, without those that the teacher saw."""
    from weakteach.evaluation.teaching import Slice
    from weakteach.preferences.duplicates import UNSEEN, groups, recognizer
    from weakteach.statistics.cross_fit import clustered_share

    part = labels.part
    human = part.human_choices(store).rename_columns(["pair_id", "human"])
    table = part.read(store, ["pair_id", *TEXT_COLUMNS, "source"])
    table = table.filter(pa.array(recognizer(trained)(table) == UNSEEN))
    weak = read_labels(store, labels).select(["pair_id", "choice"])
    joined = table.join(weak, "pair_id", join_type="inner").join(
        human, "pair_id", join_type="inner"
    )
    if not len(joined):
        raise DataError(f"No pair of {labels} has a human choice and is new to the teacher")
    joined = joined.sort_by("pair_id")
    right = (joined["choice"].to_numpy() == joined["human"].to_numpy()).astype(float)
    name = ", ".join(sorted(set(joined["source"].to_pylist())))
    return Slice(name, clustered_share(right, groups(joined)))
