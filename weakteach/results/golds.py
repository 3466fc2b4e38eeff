"""What the golds of a study are worth: how often they agree with held-out humans, and how many
responses they could not read to the end. A report tells this before what golds say of students."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from weakteach.artifacts.record import is_number
from weakteach.results.findings import TOLD, Answer
from weakteach.results.outcomes import MOST, Outcomes
from weakteach.results.ran import Record, Records
from weakteach.statistics.cross_fit import clustered_share
from weakteach.study.measures import Measure

CHANCE = 0.5
# The kinds of steps that score responses with a gold, and words for whose responses they are.
SCORED = {"GoldReward": "", "GoldLabels": " of pairs"}


def gold_answers(measures: Iterable[Measure], outcomes: Outcomes) -> tuple[Answer, ...]:
    """How often each gold agrees with humans on the test pairs, with an interval that
    allows for pairs of one prompt."""
    found = {m.fingerprint: m for m in measures if m.kind == "gold_accuracy"}
    several = len({measure.setting.domain for measure in found.values()}) > 1
    return tuple(
        Answer("", TOLD, _agrees(measure, outcomes.table(measure, "compared"), several))
        for measure in found.values()
        if (facts := outcomes.facts(measure)) and facts["compared"]
    )


def _agrees(measure: Measure, table: pa.Table, several: bool) -> str:
    right = table["weak"].to_numpy() == table["human"].to_numpy()
    share = clustered_share(right.astype(float), np.asarray(table["prompt_id"].to_pylist()))
    low, high = share.low, share.high
    where = f" of {measure.setting.domain}" if several else ""
    chance = ", which is not told from chance" if low <= CHANCE <= high else ""
    return (
        f"The gold “{measure.of}” agrees with held-out humans on {share.value:.1%} "
        f"[{low:.1%}, {high:.1%}] of {len(table):,} pairs{where}{chance}."
    )


def cut_answers(records: Records) -> tuple[Answer, ...]:
    """How many responses of students, and of pairs, each gold model could not read to their end.
    These are scored by their beginning."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for (kind, _), record in records.items():
        if kind in SCORED:
            key = _name(record), SCORED[kind]
            before = counts.get(key, (0, 0))
            counts[key] = before[0] + _count(record, "cut"), before[1] + _read(kind, record)
    return tuple(
        Answer(
            "",
            TOLD,
            f"{cut:,} of {read:,} responses{whose} were too long for the gold model “{name}” and "
            "were cut.",
        )
        for (name, whose), (cut, read) in counts.items()
        if cut
    )


def _read(kind: str, record: Record) -> int:
    """The number of responses that a step scored: two for each pair; else the number in its record,
    or one for each prompt if an older record does not hold it."""
    if kind == "GoldLabels":
        return 2 * _count(record, "rows")
    return _count(record, "responses") or _count(record, "rows")


def _count(record: Record, name: str) -> int:
    """A fact of the record that is a count, 0 if it is missing or no count."""
    value = record["facts"].get(name)
    return int(value) if is_number(value) and 0 <= value <= MOST else 0


def _name(record: Record) -> str:
    """The label of a gold model, or the step of a model that the study trained."""
    gold = record["parameters"].get("gold")
    model = gold.get("model") if isinstance(gold, Mapping) else None
    named = model if isinstance(model, Mapping) else {}
    return str(named.get("label") or f"{named.get('step')}/{named.get('fingerprint')}")
