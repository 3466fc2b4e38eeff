"""Label tables derived from other label tables and human choices, without another labeling pass.

Tables are joined by pair id, and results come in the order of the ids, whatever the order of the
rows that they are made of. A result may be empty.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import pyarrow as pa
import pyarrow.compute as pc

from weakteach.preferences.pair import CHOICE_SCHEMA, DataError


def compared(labels: pa.Table, human: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
    """The labels of the pairs that a human labeled too, and the human choices of the same pairs."""
    choices = human.select(["pair_id", "choice"]).rename_columns(["pair_id", "human"])
    joined = labels.join(choices, "pair_id", join_type="inner").sort_by("pair_id")
    kept = joined.select(labels.column_names)
    return kept.replace_schema_metadata(labels.schema.metadata), joined["human"]


def matched(labels: pa.Table, human: pa.Table) -> pa.Table:
    """The labels that agree with the human choice."""
    kept, choices = compared(labels, human)
    return kept.filter(pc.equal(kept["choice"], choices))


def mismatched(labels: pa.Table, human: pa.Table) -> pa.Table:
    """The labels that disagree with the human choice."""
    kept, choices = compared(labels, human)
    return kept.filter(pc.not_equal(kept["choice"], choices))


def top_margin(labels: pa.Table, share: Fraction) -> pa.Table:
    """The labels with the largest absolute margins. Their number is ``share`` of all, rounded to
    the nearest whole number, but at least one. Among equal margins, the smaller pair id goes first.
    Raises DataError for labels without margins."""
    if "margin" not in labels.column_names:
        raise DataError("These labels are choices alone: only labels by reward have margins")
    size = pa.table({"size": pc.abs(labels["margin"]), "pair_id": labels["pair_id"]})
    order = pc.sort_indices(size, [("size", "descending"), ("pair_id", "ascending")])
    count = max(1, round(share * len(labels)))
    return labels.take(order.slice(0, count)).sort_by("pair_id")


def together(human: pa.Table, weak: pa.Table) -> pa.Table:
    """The choices of both tables. Raises DataError for a pair that is in both."""
    choices = [table.select(["pair_id", "choice"]).cast(CHOICE_SCHEMA) for table in (human, weak)]
    table = pa.concat_tables(choices).sort_by("pair_id")
    if twice := len(table) - len(pc.unique(table["pair_id"])):
        raise DataError(f"{twice} pairs have both a human and a weak label")
    return table


def voted(tables: Sequence[pa.Table]) -> pa.Table:
    """The majority's choice among K tables, for each pair that all of them have:
    ``pair_id, choice, confidence, weight``. On a tie it is the second response.

    With k votes for the first response the confidence is |2k/K - 1|: 1 where all agree, 0 on a tie.
    The weight is the same.
    """
    votes = pa.concat_tables([table.select(["pair_id", "choice"]) for table in tables])
    first = pc.equal(votes["choice"], 1).cast(pa.int64())
    counted = votes.append_column("first", first).group_by("pair_id", use_threads=False)
    found = counted.aggregate([("first", "sum"), ("first", "count")]).sort_by("pair_id")
    found = found.filter(pc.equal(found["first_count"], len(tables)))
    share = found["first_sum"].to_numpy() / len(tables)
    confidence = pa.array(abs(2 * share - 1), pa.float64())
    choice = pa.array([1 if one > 0.5 else 2 for one in share], pa.int8())
    return pa.table(
        {
            "pair_id": found["pair_id"],
            "choice": choice,
            "confidence": confidence,
            "weight": confidence,
        }
    )


def flipped_like(human: pa.Table, like: pa.Table, seed: int) -> tuple[pa.Table, int]:
    """Human choices with random errors, and the number of errors.

    Of the pairs that both tables label, as many are flipped as the two disagree on. Which ones
    depends on the pair ids and the seed alone.
    """
    kept, choices = compared(like, human)
    errors = pc.sum(pc.not_equal(kept["choice"], choices)).as_py() or 0
    ids = kept["pair_id"].to_pylist()
    flipped = set(sorted(ids, key=lambda pair_id: _draw(seed, pair_id))[:errors])
    noisy = [
        3 - choice if pair_id in flipped else choice
        for pair_id, choice in zip(ids, choices.to_pylist(), strict=True)
    ]
    return pa.table([ids, noisy], schema=CHOICE_SCHEMA), errors


def _draw(seed: int, pair_id: str) -> bytes:
    return hashlib.sha256(f"flip {seed} {pair_id}".encode()).digest()
