"""What teachers and their labels are worth: accuracy, calibration, and the pairs they get wrong."""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weakteach.results.findings import (
    Example,
    Figure,
    Histogram,
    ReliabilityDiagram,
    TableOf,
    Value,
)
from weakteach.results.outcomes import Outcomes, by_prompt, column_of
from weakteach.statistics.calibration import Calibration, calibration, error_parts
from weakteach.statistics.estimate import Estimate
from weakteach.statistics.joined import Column, Joined, Missing, crossed, overlapping
from weakteach.study.experiment import Experiment
from weakteach.study.measures import Measure
from weakteach.study.roles import ROLES

MOST_EXAMPLES = 24
MARGIN_BINS = 20
# How many teachers' calibration is drawn at most; the table has that of all.
MOST_CURVES = 4


def teacher_table(measures: Sequence[Measure], outcomes: Outcomes) -> tuple[TableOf, ...]:
    """One row per teacher: accuracy on the test part, agreement on the unlabeled part."""
    rows = []
    for key, of in _by_teacher(measures).items():
        tested = _done([m for m in of if m.kind == "teacher_accuracy"], outcomes)
        labeled = _done([m for m in of if m.kind == "agreement"], outcomes)
        if not tested:
            continue
        tables = [outcomes.table(m, "compared") for m in tested]
        ece = fmean(_calibration(table).ece for table in tables)
        rows.append(
            (
                *key,
                _share(outcomes.joined(tested)),
                _gold_accuracy(tested, outcomes),
                _share(outcomes.joined(labeled)) if labeled else None,
                _longer(tested, outcomes, "weak_longer"),
                _longer(tested, outcomes, "human_longer"),
                _stability(tested, outcomes),
                ece,
            )
        )
    if not rows:
        return ()
    columns = (
        "domain", "teacher", "kind", "labeled", "accuracy against humans", "accuracy against gold",
        "agreement on unlabeled", "chooses the longer", "humans choose the longer",
        "agreement between seeds", "calibration error (ECE)",
    )  # fmt: skip
    note = (
        "Shares of held-out test pairs (agreement: of the unlabeled pairs) with 95% intervals. A "
        "teacher whose interval holds 50% is not told from chance."
    )
    return (TableOf("Teachers", columns, tuple(rows), note),)


def teacher_figures(measures: Sequence[Measure], outcomes: Outcomes) -> tuple[Figure, ...]:
    """Reliability diagrams of the first MOST_CURVES teachers, and a histogram of the margins of
    right and wrong labels of the first one."""
    figures: list[Figure] = []
    for key, of in list(_by_teacher(measures).items())[:MOST_CURVES]:
        tested = _done([m for m in of if m.kind == "teacher_accuracy"], outcomes)
        if not tested:
            continue
        tables = [outcomes.table(m, "compared") for m in tested]
        table, name = pa.concat_tables(tables), f"{key[1]} ({key[2]}), {key[3]} labeled, {key[0]}"
        bins = tuple((b.probability, b.accuracy, b.count) for b in _calibration(table).bins)
        each = [_calibration(one) for one in tables]
        caption = (
            f"Expected calibration error {fmean(one.ece for one in each):.3f}; a perfectly "
            f"calibrated teacher would show about {fmean(one.ece_by_chance for one in each):.3f} "
            "by chance (means over seeds). Bins hold the labels of all seeds; their intervals are "
            "for new pairs."
        )
        figures.append(ReliabilityDiagram(f"Reliability of {name}", bins, caption))
        if len(figures) == 1:
            figures.append(_margins(f"Margins of {name}", table))
    return tuple(figures)


def scaling_table(experiment: Experiment, outcomes: Outcomes) -> TableOf | None:
    """What temperature scaling does for the calibration error of each teacher on the test part;
    None where it was not measured."""
    rows: list[tuple[Value, ...]] = []
    measured = [m for m in experiment.measures if m.kind == "ece_gain"]
    for of in _by_teacher(measured).values():
        done = _done(of, outcomes)
        if not done:
            continue
        tables = {m.seed: outcomes.table(m, "reliability") for m in done}
        errors = (
            _mean({seed: _error_parts(table, name) for seed, table in tables.items()})
            for name in ("claimed", "scaled")
        )
        gained = outcomes.joined(done)
        temperature = fmean(float((outcomes.facts(m) or {})["temperature"]) for m in done)
        rows.append(
            (
                done[0].setting.weak,
                temperature,
                *errors,
                gained.reason if isinstance(gained, Missing) else gained.mean(),
            )
        )
    if not rows:
        return None
    return TableOf(
        "Calibration before and after temperature scaling",
        ("teacher", "temperature", "error claimed", "error scaled", "gained"),
        tuple(rows),
        "Expected calibration errors of labels of test pairs, means over seeds. The temperature is "
        "fitted on labeled pairs, each held out from a teacher of the others.",
    )


def _mean(columns: dict[int, Column]) -> Value:
    joined = crossed(columns)
    return joined.reason if isinstance(joined, Missing) else joined.mean()


def _error_parts(table: pa.Table, name: str) -> Column:
    parts = error_parts(table[name].to_numpy(), table["right"].to_numpy())
    return by_prompt(table, parts)


LABELS_NOTE = (
    "Means over seeds with 95% intervals for new seeds and new pairs; the seeds' unlabeled parts "
    "overlap, which the intervals take into account. With one seed they hold for new pairs alone."
)


def label_tables(experiment: Experiment, outcomes: Outcomes) -> list[TableOf]:
    """Gold rewards of chosen and rejected responses, and whom gold sides with where weak and human
    labels differ (E8)."""
    tables = []
    by_role: dict[str, list[Measure]] = {}
    for measure in experiment.measures:
        if measure.kind == "label_gold":
            by_role.setdefault(measure.role, []).append(measure)
    rows = [
        _gold_row(role, done, outcomes)
        for role, of in by_role.items()
        if (done := _done(of, outcomes))
    ]
    if rows:
        columns = ("labels", "chosen", "rejected", "difference", "pairs")
        tables.append(TableOf("Gold reward of the labels", columns, tuple(rows), LABELS_NOTE))
    agreements = _done([m for m in experiment.measures if m.kind == "agreement"], outcomes)
    facts = [outcomes.facts(m) or {} for m in agreements]
    if experiment.axis == "labels" and facts and facts[0]["gold_with_weak"] is not None:
        tables.append(
            TableOf(
                "Weak labels against human ones",
                ("agreement", "gold sides with weak on mismatches", "pairs", "mismatches"),
                (_agreement_row(agreements, outcomes),),
                LABELS_NOTE,
            )
        )
    return tables


def _gold_row(role: str, measures: Sequence[Measure], outcomes: Outcomes) -> tuple[Value, ...]:
    tables = {m.seed: outcomes.table(m, "gold") for m in measures}
    chosen, rejected = (
        {seed: by_prompt(table, table[name].to_numpy()) for seed, table in tables.items()}
        for name in ("chosen", "rejected")
    )
    gap = {s: Column(c.ids, c.values - rejected[s].values) for s, c in chosen.items()}
    found = [overlapping(columns) for columns in (chosen, rejected, gap)]
    means = (one.reason if isinstance(one, Missing) else one.mean() for one in found)
    return (ROLES[role], *means, len(_pairs(tables.values())))


def _agreement_row(measures: Sequence[Measure], outcomes: Outcomes) -> tuple[Value, ...]:
    """Agreement, how often gold sides with weak, and the number of different pairs of each."""
    compared = {measure.seed: outcomes.table(measure, "compared") for measure in measures}
    differing = {
        seed: table.filter(pc.call_function("not_equal", [table["weak"], table["human"]]))
        for seed, table in compared.items()
    }
    sides = {
        seed: by_prompt(table, table["weak"].to_numpy() == table["gold"].to_numpy())
        for seed, table in differing.items()
        if len(table)
    }
    agreement, with_weak = _share(outcomes.joined(measures)), _share(overlapping(sides))
    return agreement, with_weak, len(_pairs(compared.values())), len(_pairs(differing.values()))


def _pairs(tables: Iterable[pa.Table]) -> set[str]:
    """The ids of the pairs that are in any of the tables."""
    return {key for table in tables for key in table["pair_id"].to_pylist()}


def examples(experiment: Experiment, outcomes: Outcomes) -> tuple[Example, ...]:
    """Mismatched pairs of the first seed that is done, those with the largest margins first."""
    done = _done([m for m in experiment.measures if m.kind == "examples"], outcomes)
    if not done:
        return ()
    table = outcomes.table(done[0], "compared").to_pylist()
    differing = [row for row in table if row["weak"] != row["human"]]
    differing.sort(key=lambda row: (-abs(row["margin"]), row["pair_id"]))
    shown = {row["pair_id"]: row for row in differing[:MOST_EXAMPLES]}
    pairs = outcomes.labeled_pairs(done[0])
    texts = pairs.filter(pa.array([one in shown for one in pairs["pair_id"].to_pylist()]))
    found = {text["pair_id"]: text for text in texts.to_pylist()}
    return tuple(_example(row, found[pair_id]) for pair_id, row in shown.items())


def _example(row: dict[str, Value], pair: dict[str, str]) -> Example:
    weak, difference = row["weak"], row.get("gold_difference")
    responses = {1: pair["response_1"], 2: pair["response_2"]}
    favored = difference if weak == 1 or difference is None else -difference  # type: ignore[operator]
    return Example(
        prompt=pair["prompt"],
        weak_choice=responses[1 if weak == 1 else 2],
        human_choice=responses[2 if weak == 1 else 1],
        margin=abs(float(row["margin"])),  # type: ignore[arg-type]
        gold_difference=favored,  # type: ignore[arg-type]
    )


def _by_teacher(
    measures: Sequence[Measure],
) -> dict[tuple[str, str, str, str], list[Measure]]:
    """Measures by domain, weak model, kind of teacher and fraction; each step once."""
    found: dict[tuple[str, str, str, str], dict[str, Measure]] = {}
    for measure in measures:
        setting = measure.setting
        key = (setting.domain, setting.weak, setting.teacher, setting.fraction)
        found.setdefault(key, {})[measure.fingerprint] = measure
    return {key: sorted(of.values(), key=lambda m: m.seed) for key, of in found.items()}


def _done(measures: Sequence[Measure], outcomes: Outcomes) -> list[Measure]:
    return [measure for measure in measures if outcomes.facts(measure)]


def _share(joined: Joined) -> Value:
    """A share with its interval, or why there is none."""
    return joined.reason if isinstance(joined, Missing) else joined.share()


def _gold_accuracy(measures: Sequence[Measure], outcomes: Outcomes) -> Value:
    """How often labels agree with the gold ones on the test pairs; None where no gold is known."""
    columns = {}
    for measure in measures:
        table = outcomes.table(measure, "compared")
        if "gold" not in table.column_names:
            return None
        right = table["weak"].to_numpy() == table["gold"].to_numpy()
        columns[measure.seed] = by_prompt(table, right)
    return _share(crossed(columns))


def _longer(measures: Sequence[Measure], outcomes: Outcomes, name: str) -> float | None:
    facts = [f for f in (outcomes.facts(m) for m in measures) if f and f["different_lengths"]]
    return fmean(f[name] / f["different_lengths"] for f in facts) if facts else None


def _stability(measures: Sequence[Measure], outcomes: Outcomes) -> Value:
    """The mean, over every two seeds, of the share of test pairs that their teachers label alike,
    among the pairs that all seeds have; or why there is none. None with one seed."""
    choices = {
        m.seed: column_of(outcomes.table(m, "compared"), "pair_id", "weak") for m in measures
    }
    if len(choices) < 2:
        return None
    joined = crossed(choices)
    if isinstance(joined, Missing):
        return joined.reason
    alike = [float((one == other).mean()) for one, other in combinations(joined.matrix, 2)]
    prompts, left_out = len(joined.ids), joined.left_out
    return Estimate(fmean(alike), math.nan, math.nan, prompts=prompts, left_out=left_out)


def _calibration(table: pa.Table) -> Calibration:
    """The calibration of labels of one or more seeds; those of one prompt are not independent."""
    right = table["weak"].to_numpy() == table["human"].to_numpy()
    probability = (1 + table["confidence"].to_numpy()) / 2
    return calibration(probability, right, groups=np.asarray(table["prompt_id"].to_pylist()))


def _margins(title: str, table: pa.Table) -> Histogram:
    margins = np.abs(table["margin"].to_numpy())
    right = table["weak"].to_numpy() == table["human"].to_numpy()
    edges = np.histogram_bin_edges(margins, MARGIN_BINS)
    counts = {
        name: tuple(int(n) for n in np.histogram(margins[where], edges)[0])
        for name, where in (("agree with the human", right), ("differ", ~right))
    }
    return Histogram(title, "absolute margin of the label", tuple(edges.tolist()), counts)
