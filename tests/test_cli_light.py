"""Commands that train nothing: worlds, checks, help, a storage that is not there."""

import json
import re
from pathlib import Path

import pytest
from gguf_files import write_gguf

from weakteach import __version__
from weakteach.cli import app
from weakteach.run.terminal import run
from weakteach.worlds.domains import POSTS
from weakteach.worlds.world import gold_reward

CASES = Path(__file__).parent / "preferences/cases"


def test_world_writes_trl_rows_from_any_index(here, tmp_path):
    here("world", 5, "--out", tmp_path / "a.jsonl")
    here("world", 2, "--start", 3, "--out", tmp_path / "b.jsonl")
    here("world", 2, "--start", 3, "--no-choices", "--out", tmp_path / "c.jsonl")
    a, b, c = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in "abc"
    )
    assert a[3:] == b
    assert list(a[0]) == ["prompt", "chosen", "rejected"]
    assert list(c[0]) == ["prompt", "response_1", "response_2"]
    assert {c[0]["response_1"], c[0]["response_2"]} == {b[0]["chosen"], b[0]["rejected"]}
    assert all(isinstance(gold_reward(r["prompt"], r["chosen"]).reward, float) for r in a)


def test_world_writes_posts_too(here, tmp_path):
    code, _, err = here("world", 3, "--domain", "posts", "--out", tmp_path / "a.jsonl")
    assert code == 0, err
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["prompt"].startswith("\n\nPost: ")
        assert isinstance(POSTS.gold(row["prompt"], row["chosen"]).reward, float)


def test_check_says_how_files_are_read_in_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    names = ("few[final].jsonl", "csv-stray-quote.csv", "system-column-dropped.jsonl")
    files = [str(CASES / name) for name in (*names, "base-unlabeled-with-choices.jsonl")]
    assert run(app, ["check", *files, "--teacher", "opt-45k"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for text in ("few[final].jsonl", "csv-stray-quote.csv:11", "26 first, 34 second", "59 pairs",
                 "0 of 60", "</s>How do I measure"):  # fmt: skip
        assert text in out


def test_check_warns_where_many_rows_are_no_pairs(tmp_path, here):
    file = tmp_path / "x[v2].jsonl"
    pair = '{"prompt": "p", "chosen": "a", "rejected": "b"}\n'
    file.write_text(pair + "no\n")
    code, out, _ = here("check", file, file)
    assert code == 0
    assert "Warning: 50% of the rows of x[v2].jsonl are no pairs." in out
    code, out, err = here("check", CASES / "form-kto.jsonl")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert here("check")[0] == 2


def test_every_command_has_a_sentence_and_the_version_is_told(here):
    code, out, _ = here("--help")
    assert code == 0
    for line in (
        r"label +Label pairs with a teacher trained on a few human choices\.",
        r"check +Say what files of pairs hold",
        r"gc +Drop what no study needs",
        r"world +Write pairs of an embedded domain as JSONL\.",
    ):
        assert re.search(line, out), line
    assert here("--version")[:2] == (0, f"{__version__}\n")
    code, _, err = here("lable")
    assert code == 2
    assert "label" in err


@pytest.mark.parametrize("command", ["plan", "report", "show"])
def test_looking_at_a_storage_that_is_not_there_makes_none(here, tmp_path, command):
    code, _, err = here(command, "size[/grid]", "--storage", tmp_path / "none")
    assert code == 2
    assert "size[/grid]" in err
    assert not (tmp_path / "none").exists()


def test_a_gguf_teacher_can_be_asked_for(here, tmp_path):
    """Its tokenizer lies in no file of its own before a step has taken it out."""
    write_gguf(tmp_path / "tiny.gguf")
    few, many = tmp_path / "few.jsonl", tmp_path / "many.jsonl"
    assert here("world", 60, "--out", few)[0] == 0
    assert here("world", 20, "--start", 60, "--no-choices", "--out", many)[0] == 0
    words = ("--labeled", few, "--unlabeled", many, "--teacher", tmp_path / "tiny.gguf")
    code, out, err = here("label", *words, "--out", tmp_path, "--storage", tmp_path, "--check")
    assert code == 0, err
    assert "All is there. Nothing was started." in out
