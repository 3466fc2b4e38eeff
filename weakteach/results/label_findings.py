"""A verdict on a teacher as figures and tables: what the page of a ``label`` run shows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from weakteach.evaluation.gate import Advice, PricedRoute
from weakteach.evaluation.teaching import Seen, TeacherFacts
from weakteach.results.findings import (
    Figure,
    Histogram,
    Mark,
    MeansFigure,
    ReliabilityDiagram,
    Series,
    TableOf,
    Value,
)
from weakteach.statistics.calibration import Calibration
from weakteach.statistics.estimate import Estimate

MOST_EXAMPLES = 8
NAN = math.nan


@dataclass(frozen=True)
class JudgedPair:
    """A pair that a human labeled, with the choice of a teacher that did not see the pair.
    ``probability`` is that of the choice, after temperature scaling. Texts are untrusted."""

    prompt: str
    chosen: str
    rejected: str
    agrees: bool
    margin: float
    probability: float


@dataclass(frozen=True)
class LabelRun:
    """All that the page and ``verdict.json`` of a ``label`` run tell. ``labeled``, ``unlabeled``
    name the files; ``seen`` is None where nothing was labeled; ``price`` is that of a human label,
    None if none was given; ``surest_errors`` and ``least_sure`` are pairs to read; ``asked`` counts
    the pairs written for humans to label."""

    labeled: str
    unlabeled: str
    to_label: int
    facts: TeacherFacts
    advice: Advice
    routes: tuple[PricedRoute, ...]
    seen: Seen | None = None
    price: float | None = None
    surest_errors: tuple[JudgedPair, ...] = ()
    least_sure: tuple[JudgedPair, ...] = ()
    asked: int = 0


def judged_pairs(
    judged: pa.Table, texts: pa.Table
) -> tuple[tuple[JudgedPair, ...], tuple[JudgedPair, ...]]:
    """The wrongly labeled pairs that the teacher was most sure of, and the pairs that it was least
    sure of, at most MOST_EXAMPLES of each. ``judged`` comes from ``judged.pairs_table``;
    ``texts`` is the table of pairs."""
    rows = judged.to_pylist()
    wrong = [row for row in rows if (row["margin"] > 0) != (row["human"] == 1)]
    wrong.sort(key=lambda row: (-abs(row["margin"]), row["pair_id"]))
    unsure = sorted(rows, key=lambda row: (abs(row["margin"]), row["pair_id"]))
    lists = wrong[:MOST_EXAMPLES], unsure[:MOST_EXAMPLES]
    wanted = {row["pair_id"] for shown in lists for row in shown}
    kept = texts.filter(pa.array([one in wanted for one in texts["pair_id"].to_pylist()]))
    found = {row["pair_id"]: row for row in kept.to_pylist()}
    first, second = (tuple(_judged_pair(row, found[row["pair_id"]]) for row in x) for x in lists)
    return first, second


def label_figures(run: LabelRun) -> tuple[Figure, ...]:
    facts = run.facts
    counts = facts.margins
    figures: list[Figure] = [
        _reliability("What the teacher claims", facts.before),
        _reliability("After temperature scaling", facts.after),
        Histogram(
            "Margins right and wrong",
            "absolute margin of the label",
            counts.edges,
            {"agree with the human": counts.right, "differ": counts.wrong},
        ),
    ]
    if facts.curve is not None:
        points = zip(facts.curve.labels, facts.curve.accuracy, strict=True)
        marks = tuple(Mark(f"{n:,}", accuracy) for n, accuracy in points)
        figures.append(
            MeansFigure(
                "Learning curve",
                "labeled pairs that the teacher learned from",
                "agrees with the human",
                (Series("accuracy", marks),),
                0.5,
                "chance",
            )
        )
    figures.append(
        MeansFigure(
            "Accuracy by margin",
            "tenth of the labels, from the smallest margins to the largest",
            "agrees with the human",
            (Series("accuracy", tuple(Mark(d.name, d.accuracy) for d in facts.deciles)),),
            0.5,
            "chance",
        )
    )
    routed = tuple(Mark(_share(r), Estimate(r.accuracy, r.low, r.high)) for r in run.routes)
    by_lot = tuple(Mark(_share(r), Estimate(r.at_random, NAN, NAN)) for r in run.routes)
    figures.append(
        MeansFigure(
            "Humans label the small margins",
            "share of the pairs that humans label",
            "accuracy of all labels",
            (Series("smallest margins", routed), Series("drawn by lot", by_lot)),
        )
    )
    return tuple(figures)


def label_tables(run: LabelRun) -> tuple[TableOf, ...]:
    facts = run.facts
    tables = [_main(facts, run.seen)]
    rivals = tuple((r.name, r.accuracy, r.agreement, r.kappa, r.behind) for r in facts.rivals)
    if rivals:
        tables.append(
            TableOf(
                "Other teachers on the same pairs",
                ("teacher", "accuracy", "labels alike", "Cohen's κ", "ahead of it"),
                rivals,
                "Ahead of it: accuracy of this teacher minus that of the other, pair by pair.",
            )
        )
    confident: tuple[tuple[Value, ...], ...] = tuple(
        (f"{c.share:.0%}", round(c.share * run.to_label), c.accuracy, c.sure)
        for c in facts.confident
    )
    tables.append(
        TableOf(
            "The labels with the largest margins",
            ("share", f"labels of {run.to_label:,}", "accuracy", "surely above"),
            confident,
            "Surely above: the low end of an interval that holds for all shares together.",
        )
    )
    cost = ("cost",) if run.price is not None else ()
    routes: tuple[tuple[Value, ...], ...] = tuple(
        (
            _share(r),
            r.human_labels,
            Estimate(r.accuracy, r.low, r.high),
            r.at_random,
            *((r.cost,) if run.price is not None else ()),
        )
        for r in run.routes
    )
    tables.append(
        TableOf(
            "Humans label the small margins, the teacher the rest",
            ("humans", "human labels", "accuracy of all", "by lot", *cost),
            routes,
            "Simulated on the held-out pairs; a human label counts as right.",
        )
    )
    for title, slices in (("Accuracy by source", facts.sources), ("Elsewhere", facts.transfer)):
        rows = tuple((s.name, s.accuracy.prompts, s.accuracy) for s in slices)
        if rows:
            tables.append(TableOf(title, ("source", "pairs", "accuracy"), rows))
    return tuple(tables)


def _main(facts: TeacherFacts, seen: Seen | None) -> TableOf:
    rows: list[tuple[Value, ...]] = [
        ("Accuracy on held-out human choices", facts.accuracy),
        ("Labeled pairs", facts.pairs),
        ("Prompts, near-duplicates as one", facts.groups),
        ("Pairs that each judged teacher learned from", facts.training_pairs),
        ("Temperature", facts.temperature),
        ("Calibration error (ECE), claimed", facts.before.ece),
        ("Calibration error (ECE), scaled", facts.after.ece),
        ("ECE that chance alone would show, scaled", facts.after.ece_by_chance),
        ("ECE gained by scaling", facts.ece_gain),
        ("Brier score, claimed", facts.before.brier),
        ("Brier score, scaled", facts.after.brier),
        ("Brier score gained by scaling", facts.brier_gain),
    ]
    if facts.length is not None:
        rows.append(("Teacher chooses the longer response", facts.length.teacher))
        rows.append(("Human chooses the longer response", facts.length.human))
    if facts.curve is not None:
        reach = facts.curve.reach
        name = f"Labeled pairs that would reach {reach.wanted:.0%}"
        rows.append((name, _reach(reach.labels, reach.low, reach.high, reach.told)))
    if seen is not None:
        rows.append(("Pairs to label", seen.pairs))
        rows.append(("of these, seen in training: the same pair", seen.same_pair))
        rows.append(("the same prompt", seen.same_prompt))
        rows.append(("a near-duplicate", seen.near_duplicate))
        rows.append(("Agreement with their human choices, unseen pairs", seen.agreement))
    note = (
        f"Cross-fitted in {facts.folds} folds, {facts.repeats} "
        f"{'time' if facts.repeats == 1 else 'times'}: no pair is judged by a teacher that saw it "
        "or one like it. 95% intervals allow for the training pairs that teachers share. "
        "The ECE gained is the difference of the two that were measured. Chance raises both, the "
        "smaller one more, so it is rather too small."
    )
    return TableOf("The verdict in numbers", ("measured", "value"), tuple(rows), note)


def _reach(labels: float | None, low: float | None, high: float | None, told: bool) -> str:
    if not told or labels is None:
        return "cannot be told from these pairs"
    ends = ["?" if end is None else f"{end:,.0f}" for end in (low, high)]
    return f"about {labels:,.0f} [{ends[0]}, {ends[1]}]"


def _reliability(title: str, found: Calibration) -> ReliabilityDiagram:
    bins = tuple((one.probability, one.accuracy, one.count) for one in found.bins)
    caption = (
        f"Expected calibration error {found.ece:.3f}; a perfectly calibrated teacher would show "
        f"about {found.ece_by_chance:.3f} by chance."
    )
    return ReliabilityDiagram(title, bins, caption)


def _share(route: PricedRoute) -> str:
    return f"{route.human_share:.0%}"


def _judged_pair(row: Mapping[str, Any], pair: Mapping[str, Any]) -> JudgedPair:
    responses = (pair["response_1"], pair["response_2"])
    first = row["margin"] > 0
    return JudgedPair(
        prompt=pair["prompt"],
        chosen=responses[0 if first else 1],
        rejected=responses[1 if first else 0],
        agrees=first == (row["human"] == 1),
        margin=abs(row["margin"]),
        probability=row["probability"] if first else 1 - row["probability"],
    )
