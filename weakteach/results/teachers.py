"""What teachers and their labels are worth: accuracy, calibration, and the pairs they get wrong."""

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
import pyarrow as pa

from weakteach.results.findings import Example, Figure, Histogram, Reliability, TableOf, Value
from weakteach.results.outcomes import Outcomes
from weakteach.statistics.calibration import Calibration, calibration
from weakteach.statistics.crossed import mean, share, win_rate
from weakteach.statistics.estimate import Estimate
from weakteach.study.arms import ROLES, Measure
from weakteach.study.experiments import Experiment

MOST_EXAMPLES = 24
MARGIN_BINS = 20
# Of the teachers whose calibration is drawn; the others' is in the table.
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
                _accuracy(tested, outcomes),
                _gold_accuracy(tables),
                _agreement(labeled, outcomes),
                _longer(tested, outcomes, "weak_longer"),
                _longer(tested, outcomes, "human_longer"),
                _stability(tables),
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
    """Reliability of the first teachers, and margins of right and wrong labels of the first."""
    figures: list[Figure] = []
    for key, of in list(_by_teacher(measures).items())[:MOST_CURVES]:
        tested = _done([m for m in of if m.kind == "teacher_accuracy"], outcomes)
        if not tested:
            continue
        table = pa.concat_tables([outcomes.table(m, "compared") for m in tested])
        found, name = _calibration(table), f"{key[1]} ({key[2]}), {key[3]} labeled, {key[0]}"
        bins = tuple((one.probability, one.accuracy, one.count) for one in found.bins)
        caption = (
            f"Expected calibration error {found.ece:.3f}; a perfectly calibrated teacher would "
            f"show about {found.ece_by_chance:.3f} by chance. All seeds together."
        )
        figures.append(Reliability(f"Reliability of {name}", bins, caption))
        if len(figures) == 1:
            figures.append(_margins(f"Margins of {name}", table))
    return tuple(figures)


def label_tables(part: Experiment, outcomes: Outcomes) -> list[TableOf]:
    """Gold rewards of chosen and rejected responses, and whom gold sides with where weak and human
    labels differ (E8)."""
    tables = []
    by_role: dict[str, list[Measure]] = {}
    for measure in part.measures:
        if measure.kind == "label_gold":
            by_role.setdefault(measure.role, []).append(measure)
    rows: list[tuple[Value, ...]] = []
    for role, of in by_role.items():
        done = _done(of, outcomes)
        if done:
            table = pa.concat_tables([outcomes.table(m, "gold") for m in done])
            chosen, rejected = (table[c].to_numpy() for c in ("chosen", "rejected"))
            rows.append(
                (ROLES[role], _pooled(chosen), _pooled(rejected), _pooled(chosen - rejected),
                 len(table))
            )  # fmt: skip
    if rows:
        tables.append(
            TableOf(
                "Gold reward of the labels",
                ("labels", "chosen", "rejected", "difference", "pairs"),
                tuple(rows),
                "All seeds together; intervals for new pairs.",
            )
        )
    agreements = _done([m for m in part.measures if m.kind == "agreement"], outcomes)
    facts = [outcomes.facts(m) or {} for m in agreements]
    if part.axis == "labels" and facts and facts[0]["gold_with_weak"] is not None:
        compared, agreed = (sum(f[name] for f in facts) for name in ("compared", "agreed"))
        sided, differ = sum(f["gold_with_weak"] for f in facts), compared - agreed
        sides = win_rate(sided, 0, differ - sided) if differ else None
        row = (win_rate(agreed, 0, compared - agreed), sides, compared, differ)
        tables.append(
            TableOf(
                "Weak labels against human ones",
                ("agreement", "gold sides with weak on mismatches", "pairs", "mismatches"),
                (row,),
                "All seeds together.",
            )
        )
    return tables


def examples(part: Experiment, outcomes: Outcomes) -> tuple[Example, ...]:
    """Mismatched pairs of the first seed that is done: the teacher's surest first."""
    done = _done([m for m in part.measures if m.kind == "examples"], outcomes)
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


def _accuracy(measures: Sequence[Measure], outcomes: Outcomes) -> Estimate | None:
    matrix = outcomes.matrix(measures)
    return None if matrix is None else share(matrix)


def _gold_accuracy(tables: Sequence[pa.Table]) -> Estimate | None:
    """All tables are of the same pairs in the same order."""
    if "gold" not in tables[0].column_names:
        return None
    right = [table["weak"].to_numpy() == table["gold"].to_numpy() for table in tables]
    return share(np.stack(right).astype(float))


def _agreement(measures: Sequence[Measure], outcomes: Outcomes) -> Estimate | None:
    """The seeds' unlabeled parts overlap: the interval counts the pairs of one of them."""
    facts = [f for f in (outcomes.facts(m) for m in measures) if f]
    if not facts:
        return None
    agreed, compared = (fmean(f[name] for f in facts) for name in ("agreed", "compared"))
    return win_rate(round(agreed), 0, round(compared - agreed))


def _longer(measures: Sequence[Measure], outcomes: Outcomes, name: str) -> float | None:
    facts = [f for f in (outcomes.facts(m) for m in measures) if f and f["different_lengths"]]
    return fmean(f[name] / f["different_lengths"] for f in facts) if facts else None


def _stability(tables: Sequence[pa.Table]) -> float | None:
    """Mean share of the test pairs that the teachers of two seeds label alike."""
    choices = [table["weak"].to_numpy() for table in tables]
    alike = [float((one == other).mean()) for one, other in combinations(choices, 2)]
    return fmean(alike) if alike else None


def _calibration(table: pa.Table) -> Calibration:
    right = table["weak"].to_numpy() == table["human"].to_numpy()
    return calibration((1 + table["confidence"].to_numpy()) / 2, right)


def _margins(title: str, table: pa.Table) -> Histogram:
    margins = np.abs(table["margin"].to_numpy())
    right = table["weak"].to_numpy() == table["human"].to_numpy()
    edges = np.histogram_bin_edges(margins, MARGIN_BINS)
    counts = {
        name: tuple(int(n) for n in np.histogram(margins[where], edges)[0])
        for name, where in (("agree with the human", right), ("differ", ~right))
    }
    return Histogram(title, "absolute margin of the label", tuple(edges.tolist()), counts)


def _pooled(values: np.ndarray) -> Estimate:
    return mean(values[None, :])
