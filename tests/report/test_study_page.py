"""The page of a study as a real browser shows it."""

from pathlib import Path

import numpy as np
from browser import in_browser, needs_browser
from shown import findings, section, study
from synthetic import Bed, experiment

from weakteach.report.page import write_report
from weakteach.results.analysis import analyze
from weakteach.study.manifest import Manifest, StudyInfo
from weakteach.study.measures import Measure
from weakteach.study.roles import ROLES

WIDTHS = (400, 1280, 1920)
PAIRS = [f"q{n:03}" for n in range(100)]
TEACHERS = {"opt-230k": 230_000, "SmolLM2-135M-Instruct": 106_000_000}
# A teacher that shares neither domain nor kind with the others, so that all columns are shown.
ELSEWHERE = {"weak": "SmolLM2-135M-Instruct", "domain": "posts", "teacher": "reward head"}
PROBE = """
  for (const one of page.querySelectorAll("details")) one.open = true;
  const parts = [...page.querySelectorAll(".scroll")];
  return {
    overflow: root.scrollWidth - root.clientWidth,
    parts: parts.length,
    cut: parts.filter((part) => part.scrollWidth > part.clientWidth).map(
      (part) => part.getAttribute("aria-label")),
  };
"""


def measures_of(bed: Bed) -> list[Measure]:
    """Students of all roles and two teachers, with three decimals and a sign to each number, and
    all that is measured of the teachers."""
    rng, found = np.random.default_rng(0), []
    for seed in (10, 11):
        for fraction in ("1/16", "1/2"):
            for place, role in enumerate(role for role in ROLES if role != "teacher"):
                values = dict(zip(PAIRS, rng.normal(-0.3 * place, 0.2, 100).tolist(), strict=True))
                for weak in TEACHERS if role == "weak" else ("opt-230k",):
                    where = {"fraction": fraction, "weak": weak}
                    found.append(bed.reward(role, seed, values, **where))
            for where in ({"weak": "opt-230k"}, ELSEWHERE):
                sides = rng.integers(1, 3, (100, 3)).tolist()
                rows = {pair: tuple(of) for pair, of in zip(PAIRS, sides, strict=True)}
                found += [
                    bed.compared(kind, seed, rows, fraction=fraction, **where)
                    for kind in ("agreement", "teacher_accuracy")
                ]
    return found


@needs_browser
def test_nothing_leaves_the_page_and_no_column_is_hidden(tmp_path: Path) -> None:
    """In a study with as many columns as any has, and in one with figures of every kind."""
    info = StudyInfo("s", "S", "laptop", "python s.py", "here", 1.0, sizes=TEACHERS)
    bed = Bed(tmp_path / "store")
    measured = experiment("E6", "fraction", *measures_of(bed))
    pages = []
    for found in (analyze(bed.store, Manifest(info, (measured,), ())), findings(section())):
        folder = tmp_path / str(len(pages))
        write_report(folder, study(), found, True)
        pages += [((folder / "report.html").read_text(), width) for width in WIDTHS]
    shown = in_browser(tmp_path, pages, PROBE)
    assert [one["overflow"] for one in shown] == [0] * len(pages)
    narrow, *wide = shown[:3]
    assert narrow["cut"]  # figures can be moved sideways there, as they say
    assert [one["cut"] for one in (*wide, *shown[4:])] == [[]] * 4
    assert all(one["parts"] > 4 for one in shown)
