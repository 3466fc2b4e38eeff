"""The report: its numbers, its honesty about them, and strings that it must not trust."""

import io
import math
import re
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib import image
from rich.console import Console

from weakteach.study.figures import number
from weakteach.study.report import StudyInfo, answer, summarize, terminal_table, write_report
from weakteach.study.results_schema import RESULTS_SCHEMA

ROLES = ("base", "sft", "human", "gold", "weak")
MEANS = {"base": -0.4, "sft": 0.55, "human": 1.05, "gold": 1.4, "weak": 0.8}
EMPTY = (
    "gold_reward", "gold_reward_se", "test_prompts", "garbage", "minus_human", "minus_human_se",
    "student_accuracy", "student_accuracy_pairs", "agreement", "agreement_pairs", "gold_with_weak",
    "mismatches", "teacher_accuracy", "teacher_accuracy_pairs", "teacher_accuracy_gold",
)  # fmt: skip


def study(**changes: Any) -> StudyInfo:
    return replace(
        StudyInfo(
            name="size_grid",
            title="Supervisor size and label fraction",
            preset="embedded",
            command="python sweeps/size_grid.py --storage runs",
            storage="/home/someone/runs",
            student="opt-230k",
            weak=("opt-45k", "opt-230k"),
            fractions=("1/16", "1/2"),
            seeds=(0, 1),
            arms_total=8,
            steps_total=214,
            steps_existing_at_start=12,
            steps_computed=202,
            started=1_760_000_000.0,
            seconds=1384.0,
            device_seconds=4120.0,
            data={"source": "world:3584", "rows": 3584, "pairs": 3580, "quarantined": 4},
            gold="world",
            settings=(
                ("test pairs", "512"),
                ("teacher opt-45k sft", '{"lr": 0.0012, "steps": 48}'),
            ),
            packages={"torch": "2.9.0", "ray": "2.60.0"},
            code={"version": "0.1.0", "source": "abcdef012345"},
        ),
        **changes,
    )


def rows(
    weak: tuple[str, ...] = ("opt-45k", "opt-230k"), seeds: tuple[int, ...] = (0, 1)
) -> list[dict[str, Any]]:
    """A grid with results of plausible size; baselines are shared between arms, as in a study."""
    random = np.random.default_rng(7)
    made, students = [], {}
    for seed in seeds:
        for text in ("1/16", "1/2"):
            for place, name in enumerate(weak):
                for role in ROLES:
                    key = (role, text, seed, name if role == "weak" else "")
                    if key not in students:
                        lift = 0.12 * place + 0.3 * float(Fraction(text)) if role == "weak" else 0
                        students[key] = MEANS[role] + lift + 0.06 * random.normal()
                    human = (
                        students["human", text, seed, ""] if role not in ("base", "sft") else 1.0
                    )
                    made.append(row(name, text, seed, role, students[key], human, str(key)))
    return made


def row(
    weak: str, text: str, seed: int, role: str, value: float, human: float, fingerprint: str
) -> dict[str, Any]:
    of_weak = role == "weak"
    agreed = 0.55 + 0.2 * float(Fraction(text)) + 0.03 * (weak == "opt-230k") + 0.01 * (seed % 5)
    return {
        "arm": f"{weak} {text} seed {seed}",
        "weak": weak,
        "student": "opt-230k",
        "fraction": float(Fraction(text)),
        "fraction_text": text,
        "seed": seed,
        "role": role,
        "gold_reward": value,
        "gold_reward_se": 0.05,
        "test_prompts": 500,
        "garbage": 0.021,
        "minus_human": None if role == "human" else value - human,
        "minus_human_se": None if role == "human" else 0.045,
        "student_accuracy": None if role in ("base", "sft") else 0.6 + 0.02 * (seed % 5),
        "student_accuracy_pairs": None if role in ("base", "sft") else 512,
        "agreement": agreed if of_weak else None,
        "agreement_pairs": 1536 if of_weak else None,
        "gold_with_weak": 0.43 if of_weak else None,
        "mismatches": 600 if of_weak else None,
        "teacher_accuracy": agreed + 0.01 if of_weak else None,
        "teacher_accuracy_pairs": 512 if of_weak else None,
        "teacher_accuracy_gold": agreed + 0.05 if of_weak else None,
        "fingerprint": fingerprint,
        "status": "done",
        "error": None,
    }


def table(made: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(made, RESULTS_SCHEMA)


def without(made: dict[str, Any], status: str, error: str | None = None) -> dict[str, Any]:
    """A row as it is before there is a result."""
    return made | dict.fromkeys(EMPTY) | {"status": status, "error": error}


def one_failed() -> list[dict[str, Any]]:
    """Three seeds, and one arm whose teacher failed."""
    return [
        without(made, "failed", "The loss is NaN at step 17: lower the learning rate")
        if made["arm"] == "opt-45k 1/16 seed 2" and made["role"] == "weak"
        else made
        for made in rows(seeds=(0, 1, 2))
    ]


def no_gold() -> list[dict[str, Any]]:
    dropped = dict.fromkeys(("gold_reward", "gold_reward_se", "test_prompts", "garbage",
                             "minus_human", "minus_human_se", "gold_with_weak", "mismatches",
                             "teacher_accuracy_gold"))  # fmt: skip
    made = [row | dropped for row in rows() if row["role"] in ("human", "weak")]
    return [row | {"student_accuracy": 0.7 if row["role"] == "human" else 0.66} for row in made]


def page(folder: Path, made: list[dict[str, Any]], final: bool = True, **changes: Any) -> str:
    write_report(folder, study(**changes), table(made), final)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "size_figure.png"]
    return (folder / "report.html").read_text()


def visible(html: str) -> str:
    """The words of a page, with spaces in a row as one."""
    text = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2)])
def test_means_are_those_of_the_students(seeds: tuple[int, ...]) -> None:
    made = table(rows(seeds=seeds))
    frame = made.to_pandas().drop_duplicates(["fingerprint", "role"])
    summary = summarize(made).set_index(["role", "weak", "fraction_text"])
    assert len(summary) == 2 * (4 + 2)
    for (role, weak, text), shown in summary.iterrows():  # type: ignore[misc]
        of = frame[(frame.role == role) & (frame.fraction_text == text)]
        of = of[of.weak == weak] if role == "weak" else of
        assert shown.seeds == len(of) == len(seeds)
        assert shown.gold_reward == pytest.approx(of.gold_reward.mean())
        assert math.isclose(shown.minus_human, of.minus_human.mean()) or role == "human"
        if len(seeds) == 2:
            half = 1.959964 * of.gold_reward_se.mean()
            assert shown.gold_reward_low == pytest.approx(of.gold_reward.mean() - half, abs=1e-5)
        else:
            assert shown.gold_reward_high - shown.gold_reward > 1.96 * 0.05


def test_a_baseline_shared_by_arms_counts_once() -> None:
    human = summarize(table(rows())).query("role == 'human'")
    assert human["seeds"].tolist() == [2, 2]
    assert human["weak"].tolist() == ["", ""]


def test_the_page_shows_the_numbers_of_the_table(tmp_path: Path) -> None:
    made = rows()
    text = visible(page(tmp_path, made))
    frame = pd.DataFrame(made)
    weak = frame[(frame.role == "weak") & (frame.fraction_text == "1/2")]
    for _, of in weak.groupby("weak"):
        mean, half = of.minus_human.mean(), 1.959964 * of.minus_human_se.mean()
        shown = f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]".replace("-", "\N{MINUS SIGN}")
        assert shown in text
        assert f"{100 * of.agreement.mean():.1f} [" in text
    mean, half = weak.minus_human.mean(), 1.959964 * weak.minus_human_se.mean()
    shown = f"{mean:.2f} (95% interval {mean - half:.2f} to {mean + half:.2f}; 4 arms, 2 seeds"
    assert shown.replace("-", "\N{MINUS SIGN}") in text
    assert "8 of 8 arms done" in text
    assert "3584 = 3580 pairs + 4 quarantined" in text
    assert "214: 12 existed at the start, 202 computed" in text
    assert "41.2 min" not in text
    assert "68.7 min of device time" in text


def differences(values: list[float], se: float) -> pa.Table:
    return table(
        [
            row("opt-45k", "1/2", seed, "weak", value, 0.0, f"{seed}") | {"minus_human_se": se}
            for seed, value in enumerate(values)
        ]
    )


@pytest.mark.parametrize(
    ("values", "se", "verdict", "words"),
    [
        ([0.4, 0.5, 0.45], 0.02, "weak better", "weak labels are better"),
        ([-0.4, -0.5, -0.45], 0.02, "human better", "human labels are better"),
        ([0.1, 0.2, 0.15], 0.2, "not decided", "not decided at this n"),
        ([0.9, -0.1, 0.5], 0.02, "not decided", "not decided at this n"),
        ([0.9, -0.1], 0.02, "not decided", "not decided at this n"),
        ([0.4, 0.5], 0.02, "weak better", "weak labels are better for these seeds"),
    ],
)
def test_verdicts(values: list[float], se: float, verdict: str, words: str) -> None:
    made = differences(values, se)
    assert summarize(made)["verdict"].tolist() == [verdict]
    text = " ".join(answer(made))
    assert words in text
    assert ("how much training itself varies is not known" in text) == (len(values) < 3)


def test_a_student_that_human_labels_do_not_help_is_named() -> None:
    made = [made | {"minus_human": 0.01} if made["role"] == "base" else made for made in rows()]
    assert "no gain is shown" in " ".join(answer(table(made)))
    assert "no gain is shown" not in " ".join(answer(table(rows())))


def test_strings_are_not_trusted(tmp_path: Path) -> None:
    evil = "<script>alert('$x$ & y')</script>"
    made = [made | {"weak": evil, "arm": evil} for made in rows(weak=("opt-45k",))]
    made[0] = without(made[0], "failed", f"{evil} <img src=x onerror=alert(1)>")
    html = page(
        tmp_path, made, weak=(evil,), title=evil, command=evil, student=evil, storage=evil,
        gold=evil, settings=((evil, evil),), packages={evil: evil}, data={evil: evil},
        code={evil: evil}, fractions=("1/16", "1/2"),
    )  # fmt: skip
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


def test_odd_names_do_not_break_the_figure(tmp_path: Path) -> None:
    names = (r"a/$\frac{$", "b/" + "very-long-model-name-" * 4)
    made = [made | {"weak": names[made["weak"] == "opt-230k"]} for made in rows()]
    html = page(tmp_path, made, weak=names)
    assert html.count("<svg") == 4


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    html = page(tmp_path, one_failed())
    addresses = set(re.findall(r"\w+://[^\s\"'<>)]+", html))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.findall(r"<(script|link|img|iframe|object)\b|@import|url\((?!#)", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
    assert {a or b for a, b in used} <= set(ids)


def test_colors_of_inline_figures_follow_the_page(tmp_path: Path) -> None:
    html = page(tmp_path, rows())
    figures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--human)" in figures
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) <= {"#000000"}


def test_the_figure_is_a_png(tmp_path: Path) -> None:
    page(tmp_path, rows())
    pixels = image.imread(tmp_path / "size_figure.png")
    assert pixels.shape[0] > 200
    assert pixels.std() > 0


def test_a_failed_arm_is_named_with_its_reason(tmp_path: Path) -> None:
    text = visible(page(tmp_path, one_failed(), arms_total=12, seeds=(0, 1, 2)))
    assert "Ended with 11 of 12 arms done" in text
    assert "1 failed" in text
    assert "opt-45k 1/16 seed 2 weak The loss is NaN at step 17: lower the learning rate" in text
    summary = summarize(table(one_failed())).set_index(["role", "weak", "fraction_text"])
    assert summary.loc[("weak", "opt-45k", "1/16"), "seeds"] == 2
    assert "No arm failed" in visible(page(tmp_path, rows()))


@pytest.mark.parametrize("made", [[], [without(made, "pending") for made in rows()]])
def test_before_any_result_the_page_says_so(tmp_path: Path, made: list[dict[str, Any]]) -> None:
    html = page(tmp_path, made, final=False)
    text = visible(html)
    assert "So far 0 of 8 arms done" in text
    assert "No student is scored yet" in text
    assert "nan" not in text.lower()
    assert "<svg" not in html
    terminal_table(table(made))


@pytest.mark.parametrize("known", range(0, 40, 3))
def test_part_of_the_results_makes_a_page(tmp_path: Path, known: int) -> None:
    made = rows()
    part = made[:known] + [without(one, "pending") for one in made[known:]]
    text = visible(page(tmp_path, part, final=False))
    assert f"So far {known // 5} of 8 arms done" in text
    assert not re.search(r"\bnan\b", text)


def test_agreement_stands_before_any_student_is_scored(tmp_path: Path) -> None:
    early = {name: None for name in EMPTY if not name.startswith(("agreement", "teacher"))}
    html = page(tmp_path, [row | early | {"status": "pending"} for row in rows()], final=False)
    assert html.count("<svg") == 2
    assert "Agreement" in visible(html)


def test_without_gold_students_are_compared_by_accuracy(tmp_path: Path) -> None:
    text = visible(page(tmp_path, no_gold(), gold="none"))
    assert "accuracy on held-out human choices" in text
    assert "is \N{MINUS SIGN}0.04 (95% interval" in text
    assert "512 test pairs" in text
    assert "66.0 [" in text
    assert "Gold with weak" not in text


def test_terminal_table_shows_names_as_they_are() -> None:
    made = [row | {"weak": "[red]a[/b]"} for row in rows(weak=("opt-45k",))]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal_table(table(made)))
    text = console.export_text()
    assert "[red]a[/b]" in text
    assert "human" in text


def test_numbers() -> None:
    assert number(-0.126) == "\N{MINUS SIGN}0.13"
    assert number(-0.0041) == "\N{MINUS SIGN}0.004"
    assert number(-0.0001) == number(0.0) == "0.00"
    assert number(None) == number(float("nan")) == "\N{EN DASH}"


def test_reports_are_quick_and_can_be_written_in_threads(tmp_path: Path) -> None:
    made = table(rows(seeds=(0, 1, 2, 3, 4)))
    folders = [tmp_path / str(number) for number in range(2)]
    for folder in folders:
        folder.mkdir()
    started = time.process_time()
    threads = [
        threading.Thread(target=write_report, args=(folder, study(), made, False))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((folder / "report.html").exists() for folder in folders)
    assert time.process_time() - started < 6


def test_every_column_is_documented() -> None:
    assert all(field.metadata[b"doc"] for field in RESULTS_SCHEMA)
