"""Findings made by hand, for what shows them."""

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from weakteach.results.findings import (
    Answer,
    ClaimRow,
    Example,
    Figure,
    Findings,
    Histogram,
    Mark,
    MeansFigure,
    Ran,
    ReliabilityDiagram,
    Scatter,
    Section,
    Series,
    TableOf,
)
from weakteach.statistics.estimate import Estimate
from weakteach.study.manifest import StudyInfo

NAN = math.nan
UNKNOWN = Estimate(NAN, NAN, NAN)
HOSTILE = (
    "<script>alert(1)</script> ]]> --> <!-- </svg></style></title> \" ' & {{ 7 * 7 }} $\\frac{x$ "
    "[red]rich[/red] [link=http://evil.example]x[/link] \x00\x1b[31m \u202egnirts\u2066 \ud800 中 "
)


def study(**changes: Any) -> StudyInfo:
    made = StudyInfo(
        name="paper",
        title="Every experiment of the publication",
        preset="embedded",
        command="python sweeps/paper.py --storage runs",
        storage="/home/someone/runs",
        steps_total=214,
        steps_existing_at_start=12,
        steps_computed=202,
        started=1_760_000_000.0,
        seconds=1384.0,
    )
    return replace(made, **changes)


RAN = Ran(
    facts=(("teachers", "opt-45k, opt-230k"), ("seeds", "0, 1, 2"), ("gold", "world")),
    data=(
        {"source": "world:3584", "rows": 3584, "pairs": 3580, "quarantined": 4},
        {"source": "posts:2048"},
    ),
    settings=(("test pairs", "512"), ("Sft of opt-45k", '{"lr": 0.0012, "steps": 48}')),
    versions=(("ray", "2.60.0"), ("torch", "2.9.0"), ("weakteach source", "abcdef012345")),
    device_seconds=4120.0,
)


NAMES = (
    "base, not aligned", "human labels, SFT only", "human labels", "human labels of all pairs",
    "human labels of the labeled part, as many updates", "gold labels", "weak labels",
    "human labels with random errors", "weak labels, matched pairs only",
)  # fmt: skip


def comparison(series: int, places: int, seeds: int = 3, long: bool = False) -> MeansFigure:
    draws = np.random.default_rng(series * 100 + places)
    names = ("SmolLM2-135M-Instruct at fraction {}/16", "opt-{}k")
    made = []
    for turn in range(series):
        marks = []
        for place in range(places):
            value = float(0.2 * turn + 0.1 * place + draws.normal(0, 0.1))
            half = float(draws.uniform(0.05, 0.3))
            marks.append(
                Mark(
                    names[not long].format(place + 1),
                    Estimate(value, value - half, value + half),
                    tuple(map(float, draws.normal(value, 0.1, seeds))),
                )
            )
        made.append(Series(NAMES[turn], tuple(marks)))
    return MeansFigure(
        "Gold reward by student", "student", "gold reward of the student", tuple(made), 0.0
    )


def scatter(points: int = 120) -> Scatter:
    draws = np.random.default_rng(3)
    x = draws.uniform(0, 1, points)
    y = 0.6 * x + draws.normal(0, 0.1, points)
    return Scatter(
        "Similarity of generations", "student on weak labels", "student on human labels",
        tuple(map(float, x)), tuple(map(float, y)), "R² = 0.58 [0.49, 0.66]",
    )  # fmt: skip


def reliability() -> ReliabilityDiagram:
    accuracies = [0.5 + 0.035 * n for n in range(9)]
    bins = tuple(
        (0.525 + 0.05 * n, Estimate(value, value - 0.06, value + 0.06), 300 - 30 * n)
        for n, value in enumerate(accuracies)
    )
    return ReliabilityDiagram("Calibration of opt-45k", bins, "ECE 0.041 [0.030, 0.055]")


def histogram() -> Histogram:
    edges = tuple(float(edge) for edge in np.linspace(-2, 2, 17))
    counts = {
        "matched": tuple(int(200 * math.exp(-((n - 10) ** 2) / 12)) for n in range(16)),
        "mismatched": tuple(int(120 * math.exp(-((n - 6) ** 2) / 9)) for n in range(16)),
    }
    return Histogram("Margins of opt-45k", "margin", edges, counts)


def claim(verdict: str = "supported", **changes: Any) -> ClaimRow:
    made = ClaimRow(
        "E1", "Weak labels are at least as good as human labels.", verdict,
        "gold reward, weak minus human", Estimate(0.21, 0.05, 0.37), 0.012,
        "Decided with these prompts.",
    )  # fmt: skip
    return replace(made, **changes)


def section(**changes: Any) -> Section:
    table = TableOf(
        "Gold reward of students, mean over seeds",
        ("labels", "student", "gold reward", "pairs", "share"),
        (
            ("weak labels", "opt-230k", Estimate(0.8412, 0.71, 0.97), 512, 0.638),
            ("human labels", "opt-230k", Estimate(-0.0041, NAN, NAN), 12048, None),
            ("gold labels", None, UNKNOWN, 0, NAN),
        ),
        "Holm's correction within this table.",
    )
    published = TableOf(
        "Gold reward, weak / human",
        ("student", "published weak", "our weak"),
        (("OPT-1.3B", 4.84, Estimate(0.84, 0.71, 0.97)),),
    )
    examples = tuple(
        Example(
            f"Human: how do I mend a tap number {n}?\n\nAssistant:", "Close the valve first.",
            "I do not know.", 0.3 * n, None if n == 1 else 0.5 - n,
        )
        for n in range(3)
    )  # fmt: skip
    made = Section(
        "E1", "Student size", "Does a larger student gain more from weak labels?",
        (comparison(4, 3), scatter()), (table,), published,
        (
            claim(primary=True),
            claim("not decided", needed="About 2,300 prompts would decide it."),
        ), examples,
    )  # fmt: skip
    return replace(made, **changes)


def findings(*sections: Section, **changes: Any) -> Findings:
    made = Findings(
        answers=(
            Answer("E1", "supported", "Supported: weak labels are at least as good."),
            Answer("sizes", "worse", "With 1/8 of the pairs labeled, weak labels teach worse."),
            Answer("E9", "not decided", "Not decided: noise is better."),
        ),
        ran=RAN,
        sections=sections,
        claims=(
            claim(),
            claim("contradicted", experiment="E7", sentence="Weak noise is better than random."),
            claim("not decided", experiment="E9", estimate=None, p=None, needed=""),
        ),
        teachers=(
            TableOf(
                "Teachers on held-out pairs",
                ("teacher", "accuracy", "ECE", "longer wins"),
                (("opt-45k", Estimate(0.638, 0.614, 0.662), 0.041, 0.45),),
            ),
        ),
        teacher_figures=(reliability(), histogram()),
        cost=TableOf("Cost", ("step", "steps", "device time"), (("Dpo", 24, "41 min"),)),
        failures=(),
        arms_done=8,
        arms_failed=0,
        arms_pending=0,
    )
    return replace(made, **changes)


EMPTY = findings(
    answers=(), claims=(), teachers=(), teacher_figures=(), arms_done=0, arms_pending=8,
    cost=TableOf("Cost", ("step", "device time"), ()),
)  # fmt: skip


def with_hostile_texts(value: Any) -> Any:
    """The same values with every text in them hostile, and long lines."""
    if isinstance(value, str):
        return f"{HOSTILE}{value}" + "long" * 2500
    if isinstance(value, tuple):
        return tuple(map(with_hostile_texts, value))
    if isinstance(value, dict):
        return {with_hostile_texts(k): with_hostile_texts(v) for k, v in value.items()}
    if is_dataclass(value):
        changed = {f.name: with_hostile_texts(getattr(value, f.name)) for f in fields(value)}
        return type(value)(**changed)  # type: ignore[operator]
    return value


ODD: tuple[Figure, ...] = (
    MeansFigure("empty", "x", "y", ()),
    MeansFigure("no mark", "x", "y", (Series("a", ()),), 0.5),
    MeansFigure("unknown", "x", "y", (Series("a", (Mark("p", UNKNOWN, (NAN,)),)),)),
    MeansFigure("no interval", "x", "y", (Series("a", (Mark("p", Estimate(1, NAN, NAN)),)),)),
    MeansFigure("one end", "x", "y", (Series("a", (Mark("", Estimate(1, NAN, 2), (1.0,)),)),)),
    MeansFigure("odd end", "x", "y", (Series("a", (Mark("p", Estimate(3, 1, 2)),)),)),
    Scatter("no point", "x", "y", (), (), ""),
    Scatter("one missing", "x", "y", (1.0, NAN), (2.0, 3.0), ""),
    Scatter("many", "x", "y", (1.0, 2.0) * 5000, (2.0, 3.0) * 5000, ""),
    ReliabilityDiagram("no bin", (), ""),
    ReliabilityDiagram("empty bin", ((NAN, UNKNOWN, 0), (0.7, Estimate(0.6, NAN, NAN), 4)), ""),
    Histogram("no group", "x", (0.0, 1.0), {}),
    Histogram("no count", "x", (0.0, 1.0), {"a": (0,)}),
)
