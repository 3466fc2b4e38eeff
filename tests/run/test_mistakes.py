"""A mistake is answered in one sentence, before anything heavy is imported."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/preferences/cases"
GOOD = str(CASES / "base-labeled.jsonl")
HEAVY = {"torch", "ray", "transformers", "datasets", "matplotlib", "scipy"}
RUN = f"""
import json, sys
from sweeps.size_grid import size_grid
from weakteach.cli import app
from weakteach.run.terminal import run
words = sys.argv[1:]
code = size_grid.run(words[1:]) if words[0] == "size_grid" else run(app, words)
print(json.dumps([code, sorted({HEAVY!r} & set(sys.modules))]))
"""


def labeling(labeled=GOOD, unlabeled=GOOD, *more):
    return ["label", "--labeled", labeled, "--unlabeled", unlabeled, "--out", "out", *more]


MISTAKES = {
    "a command that there is not": (["lable"], "Unknown command"),
    "no file": (["check"], "no file is named"),
    "a missing file": (labeling("nope.jsonl"), "nope.jsonl: no such file"),
    "a missing option": (["label", "--labeled", GOOD], "--unlabeled requires"),
    "an unknown option": (labeling(GOOD, GOOD, "--held-in", "0.2"), "--held-in"),
    "a value out of range": (labeling(GOOD, GOOD, "--held-out", "2"), "--held-out"),
    "an unknown model": (labeling(GOOD, GOOD, "--teacher", "opt-9z"), "Unknown model 'opt-9z'"),
    "a folder that is no model": (labeling(GOOD, GOOD, "--teacher", "."), "no config.json"),
    "a form that holds no pairs": (labeling(str(CASES / "form-kto.jsonl")), "KTO"),
    "a pointer of git-lfs": (["check", str(CASES / "git-lfs-pointer.jsonl")], "git lfs pull"),
    "columns that are not there": (["check", GOOD, "--columns", "prompt=ask"], "no column 'ask'"),
    "no human choice": (labeling("unchosen.jsonl"), "no row says which response a human chose"),
    "one labeled prompt": (labeling("one.jsonl"), "human choices for 1 prompt"),
    "no usable pair": (labeling(GOOD, "unusable.jsonl"), "holds no usable pair"),
    "a file as folder": (labeling(GOOD, GOOD, "--storage", GOOD), "base-labeled.jsonl"),
    "a cluster that is not there": (
        labeling(GOOD, GOOD, "--address", "127.0.0.1:1"), "127.0.0.1:1",
    ),
    "an unknown study": (["report", "nope"], "There is no study nope"),
    "an unknown artifact": (["show", "abc"], "holds no artifact abc"),
    "a sweep of no model": (["size_grid", "--weak", "opt-9z"], "Unknown model 'opt-9z'"),
    "a sweep of no data": (["size_grid", "--data", "nope.jsonl"], "nope.jsonl"),
    "a sweep of no option": (["size_grid", "--fraction", "1/2"], "--fraction"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_soon(mistake, tmp_path):
    row = {"prompt": "How?", "response_1": "indeed", "response_2": "whatever"}
    rows = [{**row, "prompt": f"How {n}?"} for n in range(5)]
    for name, written in {
        "unchosen": rows,
        "one": [{**row, "choice": 1}, {**row, "response_1": "well", "choice": 2}],
        "unusable": [{**row, "response_2": "indeed"}],
    }.items():
        text = "".join(json.dumps(one) + "\n" for one in written)
        (tmp_path / f"{name}.jsonl").write_text(text)
    words, says = MISTAKES[mistake]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, []], done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    # Of the processor, not of the clock: what else runs on the machine is not counted.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
