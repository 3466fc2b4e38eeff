"""The page of a study: its numbers, its figures, and texts that it must not trust."""

import re
import threading
import time
import warnings
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from shown import EMPTY, ODD, claim, findings, section, study, with_hostile_texts

from weakteach.report.page import write_report
from weakteach.report.terminal import terminal_tables
from weakteach.results.findings import (
    Example,
    Findings,
    TableOf,
)
from weakteach.results.numbers import number, with_interval
from weakteach.statistics.estimate import Estimate


def page(folder: Path, found: Findings, final: bool = True, **changes: Any) -> str:
    files = write_report(folder, study(**changes), found, final)
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert there == set(files)
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """Tags, ids and the visible words of a page, and whether its elements nest."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        # A browser ends a paragraph where a block begins.
        assert "p" not in self.open or tag not in ("p", "div", "details", "table", "ul", "ol")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th", "p", "div", "li", "h2", "caption"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


def test_the_page_shows_what_was_found(tmp_path: Path) -> None:
    text = Page(page(tmp_path, findings(section()))).text
    for words in (
        "8 of 8 arms done",
        "Of 3 claims, 1 is supported, 1 is contradicted and 1 is not decided.",
        "✓ Supported: weak labels are at least as good. E1",
        "▼ With 1/8 of the pairs labeled, weak labels teach worse.",
        "✓ supported · primary claim",
        "E1 Student size",
        "gold reward, weak minus human: 0.21 [0.05, 0.37], p = 0.012",
        "About 2,300 prompts would decide it.",
        "0.84 [0.71, 0.97]",
        "0.638 [0.614, 0.662]",
        "12,048",
        "Published against ours",
        "ECE 0.041 [0.030, 0.055]",
        "R² = 0.58",
        "Does a larger student gain more from weak labels?",
        "3584 rows = 3580 pairs + 4 quarantined · source world:3584",
        "source posts:2048",
        "214: 12 existed at the start, 202 computed",
        "68.7 min of device time",
        "Teachers opt-45k, opt-230k",
        "No arm failed",
        "Close the valve first.",
    ):
        assert words in text, words
    assert "nan" not in text.lower()
    assert "None" not in text


def test_an_interval_of_these_seeds_alone_is_marked(tmp_path: Path) -> None:
    alone = Estimate(0.21, 0.05, 0.37, seeds=2, prompts=500)
    shown = {
        seeds: Page(
            page(
                tmp_path / str(seeds),
                findings(
                    section(
                        figures=(),
                        tables=(TableOf("t", ("a", "b"), (("x", estimate),)),),
                        claims=(claim(estimate=estimate),),
                    ),
                    teacher_figures=(),
                ),
            )
        ).text
        for seeds, estimate in ((2, alone), (3, replace(alone, seeds=3, covers_seeds=True)))
    }
    for words in (
        "0.21 [0.05, 0.37]†",
        "† The interval is for new prompts",
        "for these seeds alone",
    ):
        assert words in shown[2]
        assert words not in shown[3]


def test_contents_lead_to_every_section(tmp_path: Path) -> None:
    found = findings(section(), section(id="E 7/§", title="Noise"), section(id="teachers"))
    made = Page(page(tmp_path, found, final=False))
    links = [a["href"] or "" for tag, a in made.tags if tag == "a"]
    ids = made.ids
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert [link for link in links if link in ("#E1", "#E-7", "#teachers-2x", "#teachers")]
    images = {link for link in links if not link.startswith("#")}
    pngs = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert images == pngs
    assert len(pngs) == 8


def test_nothing_is_loaded_and_only_the_known_script_runs(tmp_path: Path) -> None:
    html = page(tmp_path, findings(section()))
    made = Page(html)
    addresses = set(re.findall(r"\w+://[^\s\"'<>)]+", html))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.findall(r"@import|url\((?!#)", html)
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in made.tags}
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    policy = next(a["content"] for tag, a in made.tags if "http-equiv" in a)
    hashed = b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    )


def test_texts_are_not_trusted(tmp_path: Path) -> None:
    found = findings(section(), failures=(("arm", "weak", "The loss is NaN"),))
    plain = Page(page(tmp_path / "plain", found))
    info = with_hostile_texts(study())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(tmp_path / "hostile", info, with_hostile_texts(found), True)
    html = (tmp_path / "hostile" / "report.html").read_text()
    hostile = Page(html)
    assert html.count("<script>") == 1
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags}
    names = [{name for _, a in made.tags for name in a} for made in (hostile, plain)]
    assert names[0] <= names[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; ]]&gt;" in html
    assert "{{ 7 * 7 }}" in hostile.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)
    assert len(html) < 2_000_000
    assert "⟨U+0000⟩⟨U+001B⟩[31m ⟨U+202E⟩gnirts⟨U+2066⟩ ⟨U+D800⟩" in hostile.text


def test_a_long_text_is_folded_but_whole(tmp_path: Path) -> None:
    prompt = "word " * 2000 + "end of prompt"
    long = Example(prompt, "a", "b", 0.1, None)
    html = page(tmp_path, findings(section(examples=(long,))))
    assert "all 10,013 characters" in html
    assert prompt in html


def test_examples_stand_side_by_side_with_what_they_are_sorted_by(tmp_path: Path) -> None:
    made = Page(page(tmp_path, findings(section())))
    items = [a for tag, a in made.tags if tag == "li" and "data-margin" in a]
    assert [item["data-gold"] for item in items] == ["0.5", "", "-1.5"]
    assert "Teacher's choice" in made.text
    assert "Human's choice" in made.text


def test_before_any_result_the_page_says_so(tmp_path: Path) -> None:
    html = page(tmp_path, EMPTY, final=False)
    text = Page(html).text
    assert "So far 0 of 8 arms done." in text
    assert "claim" not in text
    assert "No experiment has a result yet." in text
    assert "No teacher is measured yet." in text
    assert "No row yet." in text
    assert "<svg" not in html
    assert terminal_tables(EMPTY) == []


def test_pending_and_failed_arms_are_named(tmp_path: Path) -> None:
    found = findings(
        section(pending=2),
        failures=(("opt-45k 1/16 seed 2", "weak", "The loss is NaN at step 17"),),
        arms_done=5, arms_failed=1, arms_pending=2,
    )  # fmt: skip
    running = Page(page(tmp_path / "running", found, final=False)).text
    assert "So far 5 of 8 arms done, 1 failed." in running
    assert "2 arms pending." in running
    assert "5 arms done, 1 failed, 2 pending." in running
    assert "E1 Student size: 2 pending" in running
    assert "opt-45k 1/16 seed 2 weak The loss is NaN at step 17" in running
    ended = Page(page(tmp_path / "ended", found)).text
    assert "Ended with 5 of 8 arms done, 1 failed." in ended
    assert "2 arms not run." in ended
    assert "Progress" not in ended


def test_a_figure_is_told_in_words_and_numbers(tmp_path: Path) -> None:
    made = Page(page(tmp_path, findings(section())))
    for _, svg in (tag for tag in made.tags if tag[0] == "svg"):
        assert svg["role"] == "img"
        assert set((svg["aria-labelledby"] or "").split()) <= set(made.ids)
    mark = section().figures[0].series[2].marks[1]  # type: ignore[union-attr]
    shown = " ".join(with_interval(mark.estimate))
    seeds = ", ".join(map(number, mark.seeds))
    assert f"{mark.x} human labels {shown} {seeds}" in made.text


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html = page(tmp_path, findings(section(figures=ODD), teacher_figures=()))
    assert not re.search(r"\bnan\b", Page(html).text)
    assert html.count("<svg") == len(ODD) == len(list(tmp_path.rglob("*.png")))
    # 10,000 points are thinned out, and the legend says so.
    assert html.count("<use") < 4000


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    found = findings(section(), section(id="E2"))
    folders = [tmp_path / name for name in "ab"]
    threads = [
        threading.Thread(target=write_report, args=(folder, study(), found, False))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    ]
    assert len(contents[0]) == 7
    assert contents[0] == contents[1]


def test_reports_are_quick(tmp_path: Path) -> None:
    sections = tuple(section(id=f"E{n}") for n in range(1, 6))
    started = time.process_time()
    html = page(tmp_path, findings(*sections))
    figures = html.count("<svg")
    assert figures == 12
    assert time.process_time() - started < 0.75 * figures
    assert len(html) < 100_000 * figures
