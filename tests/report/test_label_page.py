"""The page of a ``label`` run: its numbers, untrusted texts, and how a real browser shows it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import in_browser, needs_browser
from judged_teachers import facts, judged
from shown import HOSTILE, with_hostile_texts
from test_page import Page

from weakteach.evaluation.gate import gate, priced
from weakteach.evaluation.judged import pairs_table
from weakteach.evaluation.teaching import (
    Slice,
    TeacherFacts,
    facts_from_json,
    seen_facts,
)
from weakteach.report.label_page import verdict_json, write_label_report
from weakteach.results.label_findings import MOST_EXAMPLES, LabelRun, judged_pairs
from weakteach.statistics.estimate import Estimate

WIDTHS = (390, 768, 1280)


def known_facts() -> TeacherFacts:
    teacher = judged(300, 0.64)
    return facts(
        teacher,
        smaller={60: judged(300, 0.55), 120: judged(300, 0.6)},
        rivals=[("opt-45k, seed 1", True, judged(300, 0.64, seed=1))],
        transfer=[Slice("helpful.jsonl", Estimate(0.58, 0.52, 0.64, prompts=250))],
    )


def run_of(found: TeacherFacts, **changes: Any) -> LabelRun:
    teacher = judged(300, 0.64)
    rows = pairs_table(teacher, found.temperature)
    texts = pa.table(
        {
            "pair_id": rows["pair_id"],
            "prompt": [f"How do I mend tap {n}?" for n in range(len(rows))],
            "response_1": [f"Close the valve {n}." for n in range(len(rows))],
            "response_2": [f"I do not know {n}." for n in range(len(rows))],
        }
    )
    errors, unsure = judged_pairs(rows, texts)
    how = np.array(["same pair", "", "near-duplicate", ""], dtype=object)
    right = np.array([True, True, True, False])
    seen = seen_facts(how, right, np.ones(4, dtype=bool), np.arange(4))
    made = LabelRun(
        labeled="few.jsonl", unlabeled="many.jsonl", to_label=1200, facts=found,
        advice=gate(found, 1200), routes=priced(found.routing, 1200, 0.5), seen=seen, price=0.5,
        surest_errors=errors, least_sure=unsure, asked=40,
    )  # fmt: skip
    return replace(made, **changes)


def page(folder: Path, run: LabelRun) -> str:
    files = write_label_report(folder, run)
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert there == set(files)
    return (folder / "report.html").read_text()


def test_the_page_says_what_to_do_and_shows_why(tmp_path: Path) -> None:
    found = known_facts()
    run = run_of(found)
    text = Page(page(tmp_path, run)).text
    for words in (
        "Verdict on opt-45k", "few.jsonl labeled by humans · many.jsonl to label", "Use it.",
        run.advice.sentence, "What the teacher claims", "After temperature scaling",
        "Accuracy by margin", "Learning curve", "opt-45k, seed 1", "helpful.jsonl",
        "of these, seen in training: the same pair", "40 pairs whose human label would help",
        "Cross-fitted in 5 folds, 2 times", "What the teacher was surest of, and got wrong",
        "600",  # the cost of 1,200 labels
    ):  # fmt: skip
        assert words in text, words
    assert "95% intervals" in text
    assert "Small marks" not in text  # no seeds are shown
    assert "nan" not in text.lower()
    assert "None" not in text
    plain = replace(
        run, seen=None, price=None, asked=0, surest_errors=(), least_sure=(),
        facts=replace(found, curve=None, rivals=(), transfer=(), length=None),
    )  # fmt: skip
    less = Page(page(tmp_path / "less", plain)).text
    assert "cost" not in less
    assert "Learning curve" not in less


def test_a_kappa_that_is_not_known_is_shown_as_a_dash(tmp_path: Path) -> None:
    teacher = judged(300, 0.64)
    first = replace(teacher, margin=np.ones_like(teacher.margin))
    stored = verdict_json(run_of(facts(first, rivals=[("opt-1m", False, first)])))
    same = run_of(facts_from_json(json.dumps(json.loads(stored)["facts"])))
    shown = Page(page(tmp_path, same)).text
    assert "nan" not in shown.lower()
    assert "1.000 [0.978, 1.000] \N{EN DASH} 0.00 [0.00, 0.00] Ahead of it" in shown


def test_pairs_to_read_are_the_surest_errors_and_the_least_sure() -> None:
    run = run_of(known_facts())
    margins = [pair.margin for pair in run.surest_errors]
    assert len(margins) == len(run.least_sure) == MOST_EXAMPLES
    assert margins == sorted(margins, reverse=True)
    assert not any(pair.agrees for pair in run.surest_errors)
    assert max(pair.margin for pair in run.least_sure) < min(margins)
    assert all(pair.probability >= 0.5 for pair in run.surest_errors)


def test_the_json_holds_the_facts_and_the_advice(tmp_path: Path) -> None:
    run = run_of(known_facts())
    page(tmp_path, run)
    text = (tmp_path / "verdict.json").read_text()
    assert text == verdict_json(run)
    value = json.loads(text)
    assert value["advice"]["kind"] == run.advice.kind
    assert value["routing"][3]["cost"] == pytest.approx(0.3 * 1200 * 0.5)
    assert facts_from_json(json.dumps(value["facts"])).accuracy.value == run.facts.accuracy.value


def hostile(run: LabelRun) -> LabelRun:
    bad = with_hostile_texts(run)
    return replace(bad, advice=replace(bad.advice, kind=run.advice.kind))


def test_texts_are_not_trusted(tmp_path: Path) -> None:
    run = run_of(known_facts())
    plain, bad = Page(page(tmp_path / "a", run)), page(tmp_path / "b", hostile(run))
    assert bad.count("<script>") == 1
    assert {tag for tag, _ in Page(bad).tags} <= {tag for tag, _ in plain.tags} | {"details"}
    assert not re.findall(r"@import|url\((?!#)", bad)
    ids = Page(bad).ids
    assert len(ids) == len(set(ids))


PROBE = """
  const bar = page.querySelector(".sort"), list = page.querySelector(".pairs");
  const first = () => parseFloat(list.children[0].dataset.margin);
  const of = {
    overflow: root.scrollWidth - root.clientWidth,
    scripts: page.scripts.length,
    sorted: !bar.hidden,
    pictures: [...page.querySelectorAll("figure svg")].filter(
      (svg) => svg.getBoundingClientRect().height > 100).length,
    title: page.title,
    alerted: frame.contentWindow.alerted === true || window.alerted === true,
    before: first(),
  };
  const button = bar.querySelector("[data-by=margin]");
  button.click(); button.click();
  of.after = first();
  return of;
"""


@needs_browser
def test_a_real_browser_shows_the_page(tmp_path: Path) -> None:
    run = run_of(known_facts())
    plain, bad = page(tmp_path / "plain", run), page(tmp_path / "hostile", hostile(run))
    assert HOSTILE not in bad
    pages = [(text, width) for text in (plain, bad) for width in WIDTHS]
    shown = in_browser(tmp_path, pages, PROBE)
    for number, told in enumerate(shown):
        assert (told["overflow"], told["scripts"], told["pictures"]) == (0, 1, 6)
        assert told["sorted"]
        assert not told["alerted"]
        assert told["before"] == max(pair.margin for pair in run.surest_errors)
        assert told["after"] == min(pair.margin for pair in run.surest_errors)
        assert ("script" in told["title"]) == (number >= len(WIDTHS))
    assert len(shown) == 2 * len(WIDTHS)
