"""The report of a size study: one page and one figure, written anew as arms finish."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
from rich import box
from rich.table import Table
from rich.text import Text

from weakteach.evaluation.statistics import (
    MIN_SEEDS_FOR_SPREAD,
    Estimate,
    mean_interval,
    share_estimate,
    share_se,
)
from weakteach.study.arms import ROLES
from weakteach.study.figures import DASH, SizeFigure, number, share_svgs, size_png, size_svgs

OUTCOMES = {
    "gold_reward": "gold reward of the student",
    "student_accuracy": "accuracy of the student",
}
# Shares of pairs in the results, with the column that says of how many.
SHARES = {
    "student_accuracy": "student_accuracy_pairs",
    "agreement": "agreement_pairs",
    "gold_with_weak": "mismatches",
    "teacher_accuracy": "teacher_accuracy_pairs",
    "teacher_accuracy_gold": "teacher_accuracy_pairs",
}
WEAK_BETTER, HUMAN_BETTER, NOT_DECIDED = "weak better", "human better", "not decided"


@dataclass(frozen=True)
class StudyInfo:
    """What a report says of a study besides its results. ``data`` may hold the counts ``rows``,
    ``pairs`` and ``quarantined``; ``started`` is in seconds since the epoch."""

    name: str
    title: str
    preset: str
    command: str
    storage: str
    student: str
    weak: tuple[str, ...]
    fractions: tuple[str, ...]
    seeds: tuple[int, ...]
    arms_total: int
    steps_total: int
    steps_existing_at_start: int
    steps_computed: int
    started: float
    seconds: float
    device_seconds: float
    data: Mapping[str, int | str]
    gold: str
    settings: tuple[tuple[str, str], ...]
    packages: Mapping[str, str]
    code: Mapping[str, str]


def write_report(folder: Path, study: StudyInfo, results: pa.Table, final: bool) -> None:
    """Write ``report.html`` and ``size_figure.png`` into a local folder, each whole at any time.

    ``final`` says that nothing runs any more, whether or not all arms are done.
    """
    rows, summary, outcome = student_rows(results), summarize(results), outcome_of(results)
    figure = SizeFigure(rows, summary, outcome, OUTCOMES[outcome], study.weak, study.fractions)
    any_value = bool(summary[[outcome, *SHARES]].notna().to_numpy().any())
    statuses = list(_arms(results).values())
    page = _template().render(
        study=study,
        final=final,
        written=time.time(),
        arms={status: statuses.count(status) for status in ("done", "failed", "pending")},
        outcome=outcome,
        answer=answer(results),
        verdicts=_verdicts_at_largest(summary) if len(study.weak) > 1 else [],
        few_seeds=max(summary["seeds"].tolist(), default=0) < MIN_SEEDS_FOR_SPREAD,
        size_figures=size_svgs(figure) if results[outcome].null_count < len(results) else [],
        share_figures=share_svgs(summary, study.weak, study.fractions) if any_value else [],
        summary=_by_fraction(summary) if any_value else [],
        show_garbage=results["garbage"].null_count < len(results),
        columns=results.column_names,
        results=results.to_pylist(),
        failures=_failures(results),
    )
    _write_whole(folder / "report.html", page.encode())
    _write_whole(folder / "size_figure.png", size_png(figure))


def outcome_of(results: pa.Table) -> str:
    """By what students are compared: their accuracy where no gold is known, which is where no
    student before alignment was scored."""
    frame = results.select(["role", "gold_reward"]).to_pandas()
    scored = frame["role"].eq("base").any() or frame["gold_reward"].notna().any()
    return "gold_reward" if scored or frame.empty else "student_accuracy"


def student_rows(results: pa.Table) -> pd.DataFrame:
    """The results with one row per student: baselines that arms share appear once.

    ``weak`` is empty but for the weak role. ``student_accuracy_se`` is added; where that is the
    outcome, ``minus_human`` is of it, and its standard error is a bound that holds unless the two
    students' errors are negatively correlated (they are of the same pairs).
    """
    frame = results.to_pandas()
    shares, pairs = frame["student_accuracy"], frame["student_accuracy_pairs"].fillna(0)
    frame["student_accuracy_se"] = [share_se(p, n) for p, n in zip(shares, pairs, strict=True)]
    if outcome_of(results) == "student_accuracy":
        human = frame.loc[frame["role"] == "human"].set_index("arm")
        for column in ("student_accuracy", "student_accuracy_se"):
            frame[f"human_{column}"] = frame["arm"].map(human[column])
        other = frame["role"] != "human"
        difference = frame["student_accuracy"] - frame["human_student_accuracy"]
        error = np.hypot(frame["student_accuracy_se"], frame["human_student_accuracy_se"])
        frame["minus_human"], frame["minus_human_se"] = difference.where(other), error.where(other)
    frame["weak"] = frame["weak"].where(frame["role"] == "weak", "")
    known = frame.notna().sum(axis=1).sort_values(ascending=False, kind="stable").index
    student = ["role", "weak", "fraction_text", "fingerprint"]
    return frame.loc[known].drop_duplicates(student).sort_index()


def summarize(results: pa.Table) -> pd.DataFrame:
    """Means over seeds, one row per role, weak model (empty but for the weak role) and fraction.

    ``gold_reward``, ``minus_human`` and the shares of SHARES each stand beside their ``_low`` and
    ``_high`` (95 %, see weakteach.evaluation.statistics), NaN where nothing is known. ``seeds``
    counts the students with an outcome, ``verdict`` is of ``minus_human`` and only in weak rows.
    """
    rows, outcome = student_rows(results), outcome_of(results)
    keys = ["fraction", "fraction_text", "role", "weak"]
    made = [
        group.iloc[0][keys].to_dict() | _summary_of(group, outcome)
        for _, group in rows.groupby(keys, sort=False)
    ]
    order = {name: place for place, name in enumerate(dict.fromkeys(rows["weak"]))}
    made.sort(key=lambda row: (row["fraction"], ROLES.index(row["role"]), order[row["weak"]]))
    columns = [*keys, *_summary_of(rows.iloc[:0], outcome)]
    return pd.DataFrame(made, columns=columns)


def answer(results: pa.Table) -> list[str]:
    """What the numbers say of weak against human labels so far, in sentences."""
    rows, outcome = student_rows(results), outcome_of(results)
    compared = rows.loc[(rows["role"] == "weak") & rows["minus_human"].notna()]
    if compared.empty:
        return ["No student on weak labels can be compared with one on human labels yet."]
    what = "gold reward" if outcome == "gold_reward" else "accuracy on held-out human choices"
    largest = compared.loc[compared["fraction"] == compared["fraction"].max()]
    text = largest["fraction_text"].iloc[0]
    sentences = [
        f"With {text} of the training pairs labeled, the {what} of students on weak labels minus "
        f"that of students on human labels is {_difference(largest, outcome)}."
    ]
    if compared["fraction"].nunique() > 1:
        sentences.append(f"Over all labeled fractions it is {_difference(compared, outcome)}.")
    base = rows.loc[(rows["role"] == "base") & (rows["fraction_text"] == text)]
    base = base.loc[base["minus_human"].notna()]
    if len(base):
        gain = _pooled(base.assign(minus_human=-base["minus_human"]))
        moved = "" if gain.low > 0 else ": no gain is shown, so neither is what labels are worth"
        sentences.append(
            "For scale, alignment on human labels itself changed the student's gold reward by "
            f"{number(gain.value)} (95% interval {number(gain.low)} to {number(gain.high)}){moved}."
        )
    if len(set(compared["seed"])) < MIN_SEEDS_FOR_SPREAD:
        sentences.append(
            f"With fewer than {MIN_SEEDS_FOR_SPREAD} seeds these intervals cover the choice of the "
            "test part alone: how much training itself varies is not known."
        )
    return sentences


def terminal_table(results: pa.Table) -> Table:
    """The summary for a terminal, with half the width of each 95% interval."""
    summary, outcome = summarize(results), outcome_of(results)
    title = Text("Means over seeds, ± half their 95% interval", justify="left")
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = (outcome, "minus_human", "verdict", "agreement", "teacher_accuracy")
    for heading in ("labeled", "labels of", *columns):
        name = heading.replace("_", "\n")
        table.add_column(name, justify="right" if heading in columns else "left")
    for fraction, rows in _by_fraction(summary):
        for row in rows:
            values = _half(row, outcome), _half(row, "minus_human"), row["verdict"]
            shares = (_half(row, column, "%") for column in columns[3:])
            cells = (fraction, row["weak"] or row["role"], *values, *shares)
            # Text, because names may hold what rich would read as markup.
            table.add_row(*(Text(cell) for cell in cells))
        table.add_section()
    return table


def interval(row: Mapping[str, Any], column: str, scale: float = 1, digits: int = 2) -> str:
    """A summary's value with its interval, as ``0.12 [0.05, 0.19]``."""
    value, low, high = (row[f"{column}{end}"] * scale for end in ("", "_low", "_high"))
    shown = number(value, digits)
    return shown if np.isnan(low) else f"{shown} [{number(low, digits)}, {number(high, digits)}]"


def _half(row: Mapping[str, Any], column: str, unit: str = "") -> str:
    scale, digits = (100, 1) if unit else (1, 2)
    value, low, high = (row[f"{column}{end}"] * scale for end in ("", "_low", "_high"))
    if np.isnan(value):
        return DASH
    shown = number(value, digits) + unit
    return shown if np.isnan(low) else f"{shown} ±{number((high - low) / 2, digits)}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _summary_of(rows: pd.DataFrame, outcome: str) -> dict[str, Any]:
    known = rows.dropna(subset=[outcome])
    compared = rows.dropna(subset=["minus_human"])
    difference = _mean(compared, "minus_human")
    weak = "weak" in set(compared["role"])
    made: dict[str, Any] = {
        "seeds": len(known),
        "test_prompts": rows["test_prompts"].max() if len(known) else np.nan,
        **_flat("gold_reward", _mean(rows, "gold_reward")),
        **_flat("minus_human", difference),
        "verdict": _verdict(difference, compared["minus_human"].tolist()) if weak else "",
    }
    for column, counts in SHARES.items():
        seen = rows.dropna(subset=[column])
        shares = (seen[column].tolist(), seen[counts].tolist())
        made |= _flat(column, share_estimate(*shares) if len(seen) else Estimate(*[np.nan] * 3))
        made[counts] = seen[counts].mean() if len(seen) else made.get(counts, np.nan)
    return made | {"garbage": rows["garbage"].mean() if len(rows) else np.nan}


def _mean(rows: pd.DataFrame, column: str) -> Estimate:
    seen = rows.dropna(subset=[column])
    if seen.empty:
        return Estimate(*[np.nan] * 3)
    return mean_interval(seen[column].tolist(), seen[f"{column}_se"].tolist())


def _flat(column: str, estimate: Estimate) -> dict[str, float]:
    return {column: estimate.value, f"{column}_low": estimate.low, f"{column}_high": estimate.high}


def _pooled(rows: pd.DataFrame) -> Estimate:
    """Mean over seeds of each seed's mean over arms, which share their prompts and baseline."""
    return _mean(_by_seed(rows), "minus_human")


def _by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    means = rows.pivot_table(["minus_human", "minus_human_se"], "seed", aggfunc="mean")
    return means.reindex(columns=["minus_human", "minus_human_se"])


def _verdict(difference: Estimate, seeds: Sequence[float]) -> str:
    """Decided only if the interval leaves out 0, and few seeds do not contradict each other."""
    few_differ = len(seeds) < MIN_SEEDS_FOR_SPREAD and len({value > 0 for value in seeds}) > 1
    if few_differ or not (difference.low > 0 or difference.high < 0):
        return NOT_DECIDED
    return WEAK_BETTER if difference.low > 0 else HUMAN_BETTER


def _difference(rows: pd.DataFrame, outcome: str) -> str:
    pooled = _pooled(rows)
    verdict = _verdict(pooled, _by_seed(rows)["minus_human"].tolist())
    reach = " for these seeds" if len(set(rows["seed"])) < MIN_SEEDS_FOR_SPREAD else ""
    means = {
        WEAK_BETTER: f"weak labels are better{reach}",
        HUMAN_BETTER: f"human labels are better{reach}",
        NOT_DECIDED: "not decided at this n",
    }[verdict]
    tests = "test_prompts" if outcome == "gold_reward" else SHARES[outcome]
    counts = {"arm": len(rows), "seed": len(set(rows["seed"]))}
    n = [f"{count} {word}{'s' * (count > 1)}" for word, count in counts.items()]
    n.append(f"{rows[tests].max():,.0f} test {tests.rpartition('_')[2]}")
    return (
        f"{number(pooled.value)} (95% interval {number(pooled.low)} to {number(pooled.high)}; "
        f"{', '.join(n)}): {means}"
    )


def _verdicts_at_largest(summary: pd.DataFrame) -> list[dict[str, Any]]:
    weak = summary.loc[(summary["role"] == "weak") & summary["minus_human"].notna()]
    return weak.loc[weak["fraction"] == weak["fraction"].max()].to_dict("records")


def _by_fraction(summary: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    names = {
        "base": "nothing (base)",
        "sft": "human labels, SFT alone",
        "human": "human labels",
        "gold": "gold labels",
    }
    rows = summary.to_dict("records")
    named = [row | {"name": names.get(row["role"], f"labels of {row['weak']}")} for row in rows]
    return [(text, list(of)) for text, of in groupby(named, key=lambda row: row["fraction_text"])]


def _arms(results: pa.Table) -> dict[str, str]:
    """Status of each arm: failed if any of its roles is, done if all are."""
    statuses = results.select(["arm", "status"]).to_pandas().groupby("arm", sort=False)["status"]
    return {
        arm: "failed" if "failed" in set(of) else "done" if set(of) == {"done"} else "pending"
        for arm, of in statuses
    }


def _failures(results: pa.Table) -> list[dict[str, str]]:
    """Arm, roles and reason; roles of an arm that failed for the same reason stand together."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in results.select(["arm", "role", "status", "error"]).to_pylist():
        if row["status"] == "failed":
            found.setdefault((row["arm"], row["error"] or "unknown"), []).append(row["role"])
    return [{"arm": arm, "roles": ", ".join(r), "reason": why} for (arm, why), r in found.items()]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for shown in (number, interval, duration, moment):
        environment.filters[shown.__name__] = shown
    return environment.get_template("report.html")


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
