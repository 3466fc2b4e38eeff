"""A mistake is answered in one sentence, before anything heavy is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests/preferences/cases"
GOOD = str(CASES / "base-labeled.jsonl")
HEAVY = {"torch", "ray", "transformers", "datasets", "matplotlib", "scipy"}
# Each is answered in a fork of a process that has imported the commands.
RUN = f"""
import contextlib, io, json, os, resource, sys
from sweeps.size_grid import size_grid
from weakteach.cli import app
from weakteach.run.terminal import run

def answer(words):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = size_grid.run(words[1:]) if words[0] == "size_grid" else run(app, words)
    used = resource.getrusage(resource.RUSAGE_SELF)
    heavy = sorted({HEAVY!r} & set(sys.modules))
    return [code, heavy, err.getvalue(), used.ru_utime + used.ru_stime]

start = resource.getrusage(resource.RUSAGE_SELF)
start = start.ru_utime + start.ru_stime
answers = []
for words in json.load(sys.stdin):
    reads, writes = os.pipe()
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with os.fdopen(writes, "w") as file:
            json.dump(answer(words), file)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as file:
        code, heavy, err, seconds = json.load(file)
    os.wait()
    answers.append([code, heavy, err, start + seconds])
print(json.dumps(answers))
"""


def labeling(labeled=GOOD, unlabeled=GOOD, *more):
    return ["label", "--labeled", labeled, "--unlabeled", unlabeled, "--out", "out", *more]


def filled_in(*labeled):
    words = [word for name in labeled for word in ("--labeled", name)]
    return ["label", *words, "--unlabeled", GOOD, "--out", "filled", "--check", "--overwrite"]


MISTAKES = {
    "a command that there is not": (["lable"], "Unknown command"),
    "no file": (["check"], "no file is named"),
    "a missing file": (labeling("nope.jsonl"), "nope.jsonl: no such file"),
    "a folder beside a file": (
        labeling(GOOD, GOOD, "--labeled", "filled"), "filled/*.jsonl', or give the folder alone",
    ),
    "a split of a file": (labeling(f"{GOOD}:train"), "has no splits; give its name alone"),
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
    "an input that would be deleted": (filled_in(GOOD, "filled/asked.csv"), "asked.csv lies there"),
    "the same, by a pattern": (filled_in(GOOD, "filled/*.csv"), "asked.csv lies there"),
    "the same, by another path": (filled_in("filled/../filled/asked.csv"), "asked.csv lies there"),
    "the same, by a link": (filled_in("link.csv"), "link.csv lies there"),
    "the same, in a folder": (filled_in("filled"), "filled, all of which is read"),
    "the same, in a folder above": (filled_in("."), "all of which is read"),
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


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """By mistake: the exit code, the heavy libraries that were imported, what was printed as an
    error, and the seconds of the processor that a process took for it from its start."""
    folder = tmp_path_factory.mktemp("mistakes")
    row = {"prompt": "How?", "response_1": "indeed", "response_2": "whatever"}
    rows = [{**row, "prompt": f"How {n}?"} for n in range(5)]
    for name, written in {
        "unchosen": rows,
        "one": [{**row, "choice": 1}, {**row, "response_1": "well", "choice": 2}],
        "unusable": [{**row, "response_2": "indeed"}],
    }.items():
        text = "".join(json.dumps(one) + "\n" for one in written)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "filled").mkdir()
    cells = "".join(f"How {n}?,indeed,whatever,{1 + n % 2}\n" for n in range(5))
    (folder / "filled/asked.csv").write_text(f"prompt,response_1,response_2,choice\n{cells}")
    (folder / "link.csv").symlink_to("filled/asked.csv")
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([words for words, _ in MISTAKES.values()]),
        capture_output=True, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(MISTAKES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_soon(mistake, answers):
    code, heavy, err, seconds = answers[mistake]
    assert (code, heavy) == (2, []), err
    assert MISTAKES[mistake][1] in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    # Of the processor, not of the clock: what else runs on the machine is not counted.
    assert seconds < 3
