"""What ran in a study. It is read from the study's measures and from the records of its steps, so
that only what really ran is told."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weakteach.artifacts.store import Store
from weakteach.results.findings import Ran
from weakteach.study.manifest import Manifest
from weakteach.study.measures import Measure
from weakteach.study.roles import OF_THE_TEACHER

Record = dict[str, Any]
# The records of the steps that exist, by kind and fingerprint.
Records = Mapping[tuple[str, str], Record]

GOLD_KINDS = ("reward", "label_gold", "label_gap")
JUDGE_KINDS = ("verdicts", "consistency")
TRAINING = ("Sft", "Dpo", "RewardHead")
# Parameters that a report shows, by kind of step and name, and what it calls them.
TOLD = {
    ("HeldOut", "test_pairs"): "test pairs",
    ("Pairs", "max_tokens"): "longest pair in tokens",
    ("Generate", "max_new_tokens"): "longest response in tokens",
    ("Generate", "samples"): "responses to a prompt",
    ("Generate", "temperature"): "temperature of responses",
}


def records_of(store: Store, manifest: Manifest) -> Records:
    """The records of a study's steps, each read once."""
    found = {(kind, one): store.record_of(kind, one) for kind, one in manifest.steps}
    return {step: record for step, record in found.items() if record}


def what_ran(manifest: Manifest, records: Records) -> Ran:
    """What ran: parameters, versions and counts come from the records of steps that exist. Versions
    that differ between steps are listed with the number of steps that have each."""
    return Ran(
        facts=_facts([m for m in manifest.measures if (m.step, m.fingerprint) in records]),
        data=tuple(
            {"source": _source(record), **_counts(record)}
            for (kind, _), record in records.items()
            if kind == "Pairs"
        ),
        settings=_settings(records),
        versions=_versions(records.values()),
        device_seconds=sum(record["device_seconds"] for record in records.values()),
    )


def _facts(measures: Sequence[Measure]) -> tuple[tuple[str, str], ...]:
    """The facts of the measures that are done: teachers, students, seeds and so on."""

    def listed(values: Iterable[str]) -> str:
        return ", ".join(dict.fromkeys(values)) or "none"

    taught = [m.setting for m in measures if m.role in OF_THE_TEACHER]
    return (
        ("teachers", listed(one.weak for one in taught)),
        ("students", listed(m.setting.student for m in measures)),
        ("labeled fractions", listed(one.fraction for one in taught)),
        ("betas", listed(m.setting.beta for m in measures)),
        ("seeds", ", ".join(map(str, sorted({m.seed for m in measures}))) or "none"),
        ("pairs of", listed(m.setting.domain for m in measures)),
        ("gold", listed(m.of for m in measures if m.kind in GOLD_KINDS)),
        ("judge", listed(m.of for m in measures if m.kind in JUDGE_KINDS)),
    )


def _source(record: Record) -> str:
    source = record["parameters"].get("source")
    named = source if isinstance(source, Mapping) else {}
    return str(named.get("label") or named.get("name") or named.get("dataset") or "pairs")


def _counts(record: Record) -> dict[str, int | str]:
    return {k: v for k, v in record["facts"].items() if isinstance(v, int | str)}


def _settings(records: Records) -> tuple[tuple[str, str], ...]:
    """What steps were told to do: the recipes that each model was trained with, the parameters in
    ``TOLD``, and the dtype of each kind of step that has one; each different value once."""
    found: dict[tuple[str, str], None] = {}
    for (kind, _), record in records.items():
        parameters = record["parameters"]
        for (of, name), title in TOLD.items():
            if of == kind and name in parameters:
                found[title, str(parameters[name])] = None
        if "dtype" in parameters:
            found[f"dtype of {kind}", str(parameters["dtype"])] = None
        if kind in TRAINING and "recipe" in parameters:
            recipe = json.dumps(parameters["recipe"], sort_keys=True)
            found[f"{kind} of {_model(parameters.get('start'), records)}", recipe] = None
    return tuple(sorted(found))


def _model(start: Any, records: Mapping[tuple[str, str], Record]) -> str:
    """The name of the model that a training, or the trainings before it, began with."""
    while isinstance(start, Mapping) and "step" in start:
        record = records.get((start["step"], start.get("fingerprint", "")))
        parameters = record["parameters"] if record else {}
        if "name" in parameters:  # an embedded model that the study has pretrained
            return str(parameters["name"])
        start = parameters.get("start", parameters.get("model"))
    return str(start.get("label") or "a model") if isinstance(start, Mapping) else "a model"


def _versions(records: Iterable[Record]) -> tuple[tuple[str, str], ...]:
    """Versions of packages, Python and the code; if several, each with its number of steps."""
    found: dict[str, Counter[str]] = {}

    def count(name: str, value: Any) -> None:
        found.setdefault(name, Counter())[str(value)] += 1

    for record in records:
        for name, value in _named(record, "packages").items():
            count(name, value)
        for name, value in _named(record, "code").items():
            count(f"weakteach {name}", value)
        if "python" in record:
            count("python", record["python"])
    return tuple((name, _told(counts)) for name, counts in sorted(found.items()))


def _told(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({n} steps)" for value, n in counts.most_common())


def _named(record: Record, name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}
