"""The numbers of the publication (Tao & Li, ICLR 2025; titles name its figures and tables) and of
its successor CW-PO (arXiv 2603.04968), shown beside this study's. Gold rewards of different gold
models are not comparable; their signs and orders are."""

from collections.abc import Sequence
from itertools import takewhile

from weakteach.results.cells import Cell, human_of, minus_human
from weakteach.results.findings import MINUS_HUMAN, TableOf, Value
from weakteach.statistics.estimate import Estimate
from weakteach.statistics.joined import Missing
from weakteach.study.roles import ROLES, TOP, WEIGHTINGS

Rows = tuple[tuple[str, float | str, float | str], ...]

WEAK_HUMAN: dict[str, tuple[str, Rows]] = {
    "E1": (
        "Fig. 2a: OPT students, teacher OPT-125M",
        (("OPT-1.3B", 4.84, 4.63), ("OPT-2.7B", 5.59, 5.39), ("OPT-6.7B", 6.65, 6.19),
         ("OPT-13B", 6.91, 6.69)),
    ),
    "E3": (
        "Fig. 3a: families, teacher OPT-125M",
        (("Mistral-7B", 7.90, 7.19), ("Llama-2-7B", 8.52, 8.20), ("Gemma-7B", 7.49, 7.28)),
    ),
    "E5": (
        "Fig. 4a: TL;DR, teacher OPT-125M",
        (("OPT-1.3B", 3.29, 2.71), ("OPT-2.7B", 3.76, 3.45), ("OPT-6.7B", 4.03, 3.83),
         ("OPT-13B", 4.42, 4.17)),
    ),
    "E6": (
        "Fig. 4b: label fraction, student OPT-1.3B",
        (("1/16", 4.31, 4.37), ("1/8", 4.72, 4.74), ("1/4", 4.78, 4.69), ("1/2", 4.84, 4.63)),
    ),
    "E11": (
        "Fig. 5: other gold models, students OPT-1.3B and OPT-13B",
        (("DeBERTa-v3, OPT-1.3B", 0.30, 0.31), ("DeBERTa-v3, OPT-13B", 0.79, 0.76),
         ("RM-Mistral-7B, OPT-1.3B", 9.63, 8.67), ("RM-Mistral-7B, OPT-13B", 11.24, 10.65)),
    ),
    "E14": (
        "Table 11: with and without SFT",
        (("with SFT", 4.84, 4.63), ("without SFT", 3.83, 3.77)),
    ),
    "E15": (
        "Fig. 7: beta of DPO",
        (("0.05", 4.81, 4.50), ("0.1", 4.84, 4.63), ("0.2", 4.56, 4.17), ("0.3", 4.55, 4.08),
         ("0.5", 4.44, 4.04)),
    ),
}  # fmt: skip
LISTS: dict[str, tuple[str, tuple[tuple[str, float | str], ...]]] = {
    "E2": (
        "Fig. 2b: supervisor, student OPT-1.3B",
        (("human", 4.63), ("OPT-125M", 4.84), ("OPT-1.3B", 4.78), ("Llama-3-8B", 4.91),
         ("GPT-4, prompted", 4.52)),
    ),
    "E4": ("Fig. 3b: win rate by a judge, 100 prompts", (("five students", "about 50 %"),)),
    "E7": ("Table 1: purification", (("all", 4.84), ("matched", 4.78), ("mismatched", 4.01))),
    "E8": (
        "Table 2: gold reward of chosen and rejected responses",
        (("human", "5.77 / 4.23"), ("weak", "5.63 / 4.39"), ("matched", "5.93 / 3.66"),
         ("mismatched", "5.17 / 5.53"), ("gold sides with weak on mismatches", "44.3 %"),
         ("agreement", "60.6 %")),
    ),
    "E10": ("Table 4: consistency of a judge", (("matched", 0.84), ("mismatched", 0.66))),
    "E12": (
        "Table 10: other teachers",
        (("GPT-Neo-125M, student OPT-1.3B", 4.55), ("Pythia-160M, student OPT-1.3B", 4.87),
         ("GPT-Neo-125M, student Mistral-7B", 7.27), ("Pythia-160M, student Mistral-7B", 8.01)),
    ),
    "E13": (
        "Fig. 6: agreement of generations (R²)",
        (("student of weak labels and of human labels", 0.58),
         ("student of weak labels and teacher", 0.49)),
    ),
    "E16": (
        "Five seeds of the split (\"variances\" as printed)",
        (("weak", "4.81, variance 0.12"), ("human", "4.67, variance 0.14")),
    ),
    "E17": (
        "Table 12: random noise at the same rate",
        (("all", 3.91), ("matched", 4.57), ("mismatched", 1.53)),
    ),
    "C1": (
        "CW-PO, OPT-125M to OPT-13B, wins over the student's own SFT model, %",
        (("DPO: human, weak, weighted", "58.4 / 57.9 / 60.3"),
         ("IPO: human, weak, weighted", "58.3 / 57.9 / 61.5"),
         ("rDPO: human, weak, weighted", "56.3 / 55.5 / 62.7")),
    ),
    "C2": (
        "CW-PO on HH-RLHF, OPT-125M: accuracy against human choices, %",
        (("DPO alone", 50.8), ("SFT, then DPO", 52.1), ("reward head", 63.8)),
    ),
    "C3": (
        "CW-PO on HH-RLHF, OPT-1.3B, wins over the student's own SFT model, %",
        (("top 30 %", 67.7), ("top 40 %", 68.2), ("weighted", 69.9)),
    ),
    "C4": (
        "CW-PO: functions of the margin, wins over the student's own SFT model, %",
        (("C1", 72.7), ("C2", 69.4), ("C3", 68.4), ("C4", 70.1)),
    ),
    "C5": (
        "CW-PO with 20 % labeled, wins over the student's own SFT model, %",
        (("weighted", 70.3), ("human, all pairs", 69.7)),
    ),
    "E18": ("Table 13: kind of teacher", (("DPO teacher", 4.84), ("reward head", 4.86))),
}  # fmt: skip


def published_table(
    experiment: str, cells: Sequence[Cell], tables: Sequence[TableOf]
) -> TableOf | None:
    """The publication's numbers for an experiment, followed by this study's; None if the
    publication has none."""
    if experiment in WEAK_HUMAN:
        title, printed = WEAK_HUMAN[experiment]
        rows: list[tuple[Value, ...]] = [
            ("published", place, weak, human, _sign(weak, human)) for place, weak, human in printed
        ]
        rows += _pairs_of(cells)
        columns = ("source", "place", "weak labels", "human labels", "weak minus human")
        return TableOf(title, columns, tuple(rows), NOTE)
    if experiment in LISTS:
        title, listed = LISTS[experiment]
        rows = [("published", name, value) for name, value in listed]
        rows += _listed(cells, tables)
        return TableOf(title, ("source", "what", "value"), tuple(rows), NOTE)
    return None


NOTE = "Rewards of different golds are on different scales: compare signs and orders, not values."


def _sign(weak: float | str, human: float | str) -> Value:
    return round(weak - human, 2) if isinstance(weak, float) and isinstance(human, float) else None


def _pairs_of(cells: Sequence[Cell]) -> list[tuple[Value, ...]]:
    """A row of this study for each cell of weak labels, with its cell of human labels."""
    rows: list[tuple[Value, ...]] = []
    for cell in cells:
        human = human_of(cell, cells)
        if cell.role == "weak" and cell.estimate and human and human.estimate:
            place = cell.x if ", " not in cell.series else f"{cell.x}, {cell.series}"
            difference = minus_human(cell, cells)
            told = difference.reason if isinstance(difference, Missing) else difference
            rows.append(("ours", place, cell.estimate, human.estimate, told))
    return rows


def _listed(cells: Sequence[Cell], tables: Sequence[TableOf]) -> list[tuple[Value, ...]]:
    """Rows of this study for the roles that the publication lists, and for estimates of tables."""
    roles = ("human", "human_all", "prompted", "weak", "matched", "mismatched", "random",
             "random_matched", "random_mismatched", *TOP, *WEIGHTINGS)  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for cell in cells:
        if cell.role not in roles or cell.kind == "similarity" or cell.estimate is None:
            continue
        role = ROLES[cell.role]
        place = role if cell.x == role else f"{role}: {cell.x}"
        series = "" if cell.series == "students" else f" ({cell.series})"
        rows.append(("ours", f"{place}{series}", cell.estimate))
    for table in tables:
        for row in table.rows:
            first = "".join(f"{v}: " for v in takewhile(lambda v: isinstance(v, str), row))
            named = zip(table.columns, row, strict=True)
            rows += [
                ("ours", f"{first}{n}", v)
                for n, v in named
                if isinstance(v, Estimate) and n != MINUS_HUMAN
            ]
    return rows
