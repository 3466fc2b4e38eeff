"""How weak labels agree with human choices, and whom gold sides with where they differ."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weakteach.evaluation.gold import prompt_id
from weakteach.preferences.pair import DataError


@dataclass(frozen=True)
class LabelComparison:
    """Counts of pairs, and the standard errors (``…_se``) of three of them as shares, which allow
    for pairs of one prompt. Those that need gold labels are None if there are none.

    ``labeled`` pairs have a weak label; ``compared`` pairs also have a human choice (and a gold
    label, if there are any). On ``agreed`` of the compared pairs weak label and human choice are
    the same; on ``gold_with_weak`` of the other compared pairs gold sides with the weak label.
    ``weak_right`` counts the compared pairs whose weak label is that of gold. ``different_lengths``
    compared pairs have responses of different length; on ``weak_longer`` of these the weak label
    chooses the longer response, and on ``human_longer`` the human does.
    ``gold_with_weak_se`` is None, too, if all pairs are agreed on.
    """

    labeled: int
    compared: int
    agreed: int
    gold_with_weak: int | None
    weak_right: int | None
    different_lengths: int
    weak_longer: int
    human_longer: int
    agreed_se: float
    gold_with_weak_se: float | None
    weak_right_se: float | None


def join_labels(
    pairs: pa.Table, weak: pa.Table, human: pa.Table, gold: pa.Table | None = None
) -> pa.Table:
    """One row per pair that has a weak label, a human choice and, if ``gold`` is given, a gold
    label. Tables are joined by pair id, and rows are in the order of these ids.

    Columns: ``pair_id``; the choices ``weak``, ``human`` and, with gold, ``gold``; ``margin`` and
    ``confidence`` of the weak label; ``longer``, the response with more characters (0: neither);
    ``prompt_id``, the same for all pairs of a prompt; and, with gold, ``gold_difference``, the gold
    reward of response 1 minus that of response 2.

    Raises DataError if there is no such pair.
    """
    joined = (
        weak.select(["pair_id", "choice", "margin", "confidence"])
        .rename_columns(["pair_id", "weak", "margin", "confidence"])
        .join(_choices(human, "human"), "pair_id", join_type="inner")
    )
    if not len(joined):
        raise DataError("No pair has both a weak label and a human choice")
    if gold is not None:
        known = pa.table(
            {
                "pair_id": gold["pair_id"],
                "gold": gold["choice"],
                "gold_difference": pc.call_function(
                    "subtract", [gold["reward_1"], gold["reward_2"]]
                ),
            }
        )
        joined = joined.join(known, "pair_id", join_type="inner")
        if not len(joined):
            raise DataError("The gold labels are of other pairs than the weak ones")
    lengths = [pc.call_function("utf8_length", [pairs[f"response_{side}"]]) for side in (1, 2)]
    first, second = (length.to_numpy() for length in lengths)
    longer = np.select([first > second, second > first], [1, 2], 0).astype(np.int8)
    table = pa.table({"pair_id": pairs["pair_id"], "longer": longer})
    return with_prompts(joined.join(table, "pair_id", join_type="inner"), pairs)


def with_prompts(table: pa.Table, pairs: pa.Table) -> pa.Table:
    """The rows of the table whose pairs are among ``pairs``, in the order of their ids, with a last
    column ``prompt_id``. Outcomes of pairs that share a prompt are not independent."""
    ids = [prompt_id(prompt) for prompt in pairs["prompt"].to_pylist()]
    prompts = pa.table({"pair_id": pairs["pair_id"], "prompt_id": pa.array(ids, pa.string())})
    return table.join(prompts, "pair_id", join_type="inner").sort_by("pair_id")


def compare_labels(labeled: int, joined: pa.Table) -> LabelComparison:
    """Count the rows of the table that ``join_labels`` makes. ``labeled`` is the number of pairs
    that have a weak label, whether or not they have a human choice."""
    from weakteach.statistics.cross_fit import share_error  # scipy, not needed to plan

    weak, human, longer = (joined[name].to_numpy() for name in ("weak", "human", "longer"))
    gold = joined["gold"].to_numpy() if "gold" in joined.column_names else None
    prompt, differ, mismatch = np.asarray(joined["prompt_id"]), longer != 0, weak != human
    return LabelComparison(
        labeled=labeled,
        compared=len(joined),
        agreed=_count(weak == human),
        gold_with_weak=None if gold is None else _count((gold == weak) & mismatch),
        weak_right=None if gold is None else _count(gold == weak),
        different_lengths=_count(differ),
        weak_longer=_count(differ & (weak == longer)),
        human_longer=_count(differ & (human == longer)),
        agreed_se=share_error(weak == human, prompt),
        gold_with_weak_se=None
        if gold is None or not mismatch.any()
        else share_error((gold == weak)[mismatch], prompt[mismatch]),
        weak_right_se=None if gold is None else share_error(gold == weak, prompt),
    )


def _choices(labels: pa.Table, name: str) -> pa.Table:
    return labels.select(["pair_id", "choice"]).rename_columns(["pair_id", name])


def _count(where: np.ndarray) -> int:
    return int(where.sum())
