"""Files of pairs: identity by content, every bad row set aside with its place."""

import csv
import gzip
import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import FORMS, HH_FILE, read_text, reasons, write_jsonl, write_parquet

from weakteach.artifacts.identity import jsonable
from weakteach.preferences.pair import (
    Comparison,
    DataError,
    refusal,
)
from weakteach.preferences.sources import (
    FileSource,
    file_source,
)


def test_a_file_is_its_content_and_not_its_path(tmp_path):
    (tmp_path / "there").mkdir()
    here = file_source(write_jsonl(tmp_path / "a.jsonl", [FORMS["own"]]))
    there = file_source(write_jsonl(tmp_path / "there/b.jsonl", [FORMS["own"]]))
    other = file_source(write_jsonl(tmp_path / "c.jsonl", [FORMS["own"]] * 2))
    assert here == there != other
    assert jsonable(here) == jsonable(there)
    assert str(tmp_path) not in json.dumps(jsonable(here))
    assert here.name == "a.jsonl"


def test_bad_rows_of_a_jsonl_file_are_set_aside_with_their_lines(tmp_path):
    good = json.dumps(FORMS["explicit"]).encode()
    lines = [
        b"\xef\xbb\xbf" + good,
        b"{not json",
        b"",
        b"[1]",
        b"3",
        b"null",
        good.replace(b"Big", b"\xff\xfe"),
        b'{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}',
        b"[" * 100_000,
        b'{"prompt": ' + b"9" * 10_000 + b', "chosen": "a", "rejected": "b"}',
        '{"prompt": "p\u2028\x85", "chosen": "a", "rejected": "b"}'.encode(),
        good,
    ]
    rows = read_text(tmp_path / "f.jsonl", b"\r\n".join(lines))
    assert [
        (int(row.place.split(":")[1]), reason)
        for row, reason in zip(rows, reasons(rows), strict=True)
    ] == [
        (1, None),
        (2, "bad JSON"),
        (4, "bad JSON"),
        (5, "bad JSON"),
        (6, "bad JSON"),
        (7, "bad Unicode"),
        (8, "bad Unicode"),
        (9, "bad JSON"),
        (10, "bad JSON"),
        (11, None),
        (12, None),
    ]


def test_bad_rows_of_a_csv_file_are_set_aside_with_their_numbers(tmp_path):
    long = "x" * 200_000
    text = (
        '\ufeffprompt,response_1,response_2,choice\r\np,a,"b\nb",2\r\n\r\np,a,b,1,2\r\n'
        f'p,a\r\np,"a"b,c,1\r\np,a,c,\r\np,{long},c,1\r\np,a,BYTES,1\r\np,d,e,3\r\np,"a,b,1\r\n'
    )
    rows = read_text(tmp_path / "f.csv", text.encode().replace(b"BYTES", b"\xff"))
    assert rows[0] == Comparison("f.csv:2", "p", "a", "b\nb", 2)
    assert [row.place for row in rows] == [f"f.csv:{n}" for n in (2, *range(5, 13))]
    assert reasons(rows) == [
        None,
        "bad CSV",
        "not text",
        "bad CSV",
        None,
        None,
        "bad Unicode",
        "bad choice",
        "bad CSV",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("lines", [3, 4, 40])
def test_a_table_within_a_cell_of_a_csv_file_is_text(at, lines, delimiter, tmp_path):
    row = ["How do I write it?", "So, indeed.", "Whatever."]
    table = "\n".join(delimiter.join(f"{name}{n}" for name in "abc") for n in range(lines))
    row[at] = f"Like this:\n{table}\nThat is all."
    rows = [["prompt", "chosen", "rejected"], row, ["q", "c", "d"]]
    with (tmp_path / "f.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    source = file_source(tmp_path / "f.csv")
    assert list(source.read()) == [
        Comparison("f.csv:2", *row, 1),
        Comparison(f"f.csv:{lines + 4}", "q", "c", "d", 1),
    ]
    (note,) = source.recognized()[0].notes
    assert note == f"f.csv:2: a cell over {lines + 2} lines holds delimiters"


def test_an_open_quote_costs_its_line_alone(tmp_path):
    lines = [f"p{n},c{n},r{n}" for n in range(6)]
    lines[1] = 'p1,"c1,r1'
    for end in ("", 'p6,"c,6",r6\n'):
        text = "prompt,chosen,rejected\n" + "\n".join(lines) + "\n" + end
        rows = read_text(tmp_path / "f.csv", text)
        assert [reason for reason in reasons(rows) if reason] == ["bad CSV"]
        assert rows[1].place == "f.csv:3"
        assert len(rows) == 6 + bool(end)


def test_bytes_of_a_parquet_file_that_are_no_text_cost_their_row_only(tmp_path):
    column = pa.array([b"p", b"\xff", b"q"], pa.binary()).view(pa.string())
    table = pa.table({"prompt": column, "chosen": ["a"] * 3, "rejected": ["b"] * 3})
    pq.write_table(table, tmp_path / "f.parquet")
    rows = list(file_source(tmp_path / "f.parquet").read())
    assert reasons(rows) == [None, "bad Unicode", None]
    assert [row.place for row in rows] == ["f.parquet:1", "f.parquet:2", "f.parquet:3"]


def test_numbers_and_nulls_of_a_parquet_file_are_not_text(tmp_path):
    rows = [{"prompt": "p", "chosen": 1, "rejected": None}]
    read = list(file_source(write_parquet(tmp_path / "f.parquet", rows)).read())
    assert reasons(read) == ["not text"]


def test_a_file_of_bad_rows_only_is_quarantined_and_no_error(tmp_path):
    assert reasons(read_text(tmp_path / "f.jsonl", "a\nb\n")) == ["bad JSON"] * 2
    assert reasons(read_text(tmp_path / "g.jsonl", b"\xe9\n")) == ["bad Unicode"]
    assert reasons(read_text(tmp_path / "h.jsonl", "é\n".encode("utf-16"))) == ["bad JSON"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("f.txt", b"x", r"unknown kind.*\.jsonl, .*\.parquet"),
        ("f.jsonl", b"", "is empty"),
        ("f.jsonl", b"\n \n", "is empty"),
        ("f.csv", b"", "is empty"),
        ("f.csv", b"prompt,chosen,rejected\n", "is empty"),
        ("f.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("f.json", b'[\n{"prompt": 1}]', "its columns are 'prompt'"),
        ("f.csv", b"question,good,bad\na,b,c\n", "columns are 'question', 'good', 'bad'"),
        ("f.csv", b"a;b;c\na;b;c\n", "looked for: prompt, response_1.*--columns prompt="),
        ("f.csv", b"prompt,chosen, Chosen \na,b,c\n", "two columns of one name"),
        ("f.csv", b"q,chosen,rejected,q\na,b,c,d\n", "two columns of one name, 'q' and 'q'"),
        ("f.json", b'[{"prompt": "p"},\n{"chosen"', "one JSON array, and damaged"),
        ("f.csv", b"prompt,output_a,output_b,choice\na,b,c,1\n", "--choice-values A,B"),
        ("f.csv", b'"prompt"x,chosen\n', "header of f.csv is not CSV"),
        ("f.csv", b"\xff\xfe\x00\n", "cannot hold pairs"),
        ("f.jsonl.gz", b"{}\n", "f.jsonl.gz is damaged"),
        ("f.jsonl.gz", gzip.compress(bytes(range(128, 227)), mtime=0)[:40], "is damaged"),
        ("f.parquet", b"PAR1 no", "f.parquet is damaged"),
        ("f.parquet", b"", "f.parquet is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_says_why(name, content, sentence, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        file_source(tmp_path / name)


def test_a_parquet_file_of_other_columns_is_an_error(tmp_path):
    path = write_parquet(tmp_path / "f.parquet", [{"question": "a", "chosen": "b"}])
    with pytest.raises(DataError, match="columns are 'question', 'chosen'"):
        file_source(path)


def test_a_gzip_file_that_ends_too_early_is_an_error_that_names_the_line(tmp_path):
    data = gzip.compress(
        json.dumps(FORMS["own"]).encode() + b"\n" + os.urandom(200_000).hex().encode()
    )
    (tmp_path / "f.jsonl.gz").write_bytes(data[:-50_000])
    with pytest.raises(DataError, match="past line 1"):
        file_source(tmp_path / "f.jsonl.gz")


def test_missing_files_and_folders_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        file_source(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        file_source(tmp_path)
    with pytest.raises(DataError, match="no such file on this host"):
        list(FileSource("0" * 64, "csv", str(tmp_path / "none.csv")).read())


def test_a_file_that_changes_is_no_longer_the_source(tmp_path):
    source = file_source(write_jsonl(tmp_path / "f.jsonl", [FORMS["own"]]))
    write_jsonl(tmp_path / "f.jsonl", [FORMS["own"]] * 2)
    with pytest.raises(DataError, match="has changed"):
        list(source.read())


def test_a_name_that_is_no_text_can_be_stored(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    try:
        write_jsonl(path, [FORMS["own"]])
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (row,) = file_source(path).read()
    assert row.place.encode() == b"?.jsonl:1"


@settings(max_examples=60)
@given(
    rows=st.lists(st.sampled_from([*FORMS.values(), {}, 3, None, {"chosen": "a", "rejected": 1}]))
)
def test_a_file_gives_one_result_a_row(rows, tmp_path_factory):
    rows = [FORMS["own"], *rows]
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "f.jsonl", rows)
    read = list(file_source(path).read())
    assert [row.place for row in read] == [f"f.jsonl:{n + 1}" for n in range(len(rows))]


def test_real_rows_of_hh_rlhf():
    if not HH_FILE.is_file():
        pytest.skip(f"the HH-RLHF sample is not at {HH_FILE}")
    rows = list(file_source(HH_FILE).read())
    counts = Counter(reasons(rows))
    assert len(rows) == 1500
    assert counts == {None: 1493, "empty response": 4, "no common prompt": 3}
    kept = [row for row in rows if isinstance(row, Comparison) and refusal(row) is None]
    for row in kept:
        assert row.prompt.startswith("\n\nHuman:")
        assert row.prompt.endswith("\n\nAssistant:")
        for response in (row.first, row.second):
            assert response.startswith(" ")
            assert "\n\nHuman:" not in response
            assert "\n\nAssistant:" not in response
    assert sum(row.prompt.count("\n\nHuman:") > 1 for row in kept) > 1000
    originals = [json.loads(line) for line in gzip.decompress(HH_FILE.read_bytes()).splitlines()]
    for row in kept:
        original = originals[int(row.place.rpartition(":")[2]) - 1]
        assert row.prompt + row.first == original["chosen"]
        assert row.prompt + row.second == original["rejected"]
