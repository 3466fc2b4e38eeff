"""What the golds of a study are worth, told before what they say of students: how often they agree
with held-out humans, and how much they could not read to its end."""

from collections.abc import Iterable, Mapping
from typing import Any

from weakteach.artifacts.record import is_number
from weakteach.results.findings import TOLD, Answer
from weakteach.results.outcomes import MOST, Outcomes
from weakteach.results.ran import Record, Records
from weakteach.statistics.estimate import wilson_interval
from weakteach.study.measures import Measure

CHANCE = 0.5
# Whose responses a step of each kind that reads with a gold scores.
SCORED = {"GoldReward": "", "GoldLabels": " of pairs"}


def gold_answers(measures: Iterable[Measure], outcomes: Outcomes) -> tuple[Answer, ...]:
    """For each gold how often it agrees with humans on the test pairs, with Wilson's interval."""
    found = {m.fingerprint: m for m in measures if m.kind == "gold_accuracy"}
    several = len({measure.setting.domain for measure in found.values()}) > 1
    return tuple(
        Answer("", TOLD, _agrees(measure, facts, several))
        for measure in found.values()
        if (facts := outcomes.facts(measure)) and facts["compared"]
    )


def _agrees(measure: Measure, facts: Mapping[str, Any], several: bool) -> str:
    agreed, compared = facts["agreed"], facts["compared"]
    low, high = wilson_interval(agreed, compared)
    where = f" of {measure.setting.domain}" if several else ""
    chance = ", which is not told from chance" if low <= CHANCE <= high else ""
    return (
        f"The gold “{measure.of}” agrees with held-out humans on {agreed / compared:.1%} "
        f"[{low:.1%}, {high:.1%}] of {compared:,} pairs{where}{chance}."
    )


def cut_answers(records: Records) -> tuple[Answer, ...]:
    """For each gold model how many responses of students, and of pairs, it could not read to their
    end: they are scored by their beginning."""
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
    """Responses that a step scored: of a pair both; of a prompt, where an older record does not
    tell, the one."""
    if kind == "GoldLabels":
        return 2 * _count(record, "rows")
    return _count(record, "responses") or _count(record, "rows")


def _count(record: Record, name: str) -> int:
    """A fact that counts, 0 where it is not there or no count."""
    value = record["facts"].get(name)
    return int(value) if is_number(value) and 0 <= value <= MOST else 0


def _name(record: Record) -> str:
    """The model's label; of one that the study trained, its step."""
    gold = record["parameters"].get("gold")
    model = gold.get("model") if isinstance(gold, Mapping) else None
    named = model if isinstance(model, Mapping) else {}
    return str(named.get("label") or f"{named.get('step')}/{named.get('fingerprint')}")
