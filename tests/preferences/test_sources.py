"""Sources: every form of a row gives the same pair, every bad row is set aside with its place."""

import csv
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakteach.artifacts.identity import jsonable
from weakteach.preferences.pair import (
    Comparison,
    DataError,
    Pair,
    Quarantined,
    canonical_pair,
    refusal,
)
from weakteach.preferences.rows import Survey
from weakteach.preferences.sources import (
    FileSource,
    HubSource,
    WorldSource,
    file_source,
    hub_source,
)
from weakteach.worlds.domains import POSTS, WORLD
from weakteach.worlds.noise import BradleyTerry, UniformFlip

HH_FILE = Path(__file__).parents[3] / "shared/data/hh-rlhf/harmless-base.jsonl.gz"

PROMPT = "\n\nHuman: What is a heron?\n\nAssistant: A bird.\n\nHuman: Big?\n\nAssistant:"
CHOSEN, REJECTED = " Yes, quite big.", " Yes, but\n\nno."
HISTORY = [
    {"role": "user", "content": "What is a heron?"},
    {"role": "assistant", "content": "A bird."},
    {"role": "user", "content": "Big?"},
]
CHOSEN_MESSAGE = [{"role": "assistant", "content": CHOSEN[1:]}]
REJECTED_MESSAGE = [{"role": "assistant", "content": REJECTED[1:]}]

FORMS = {
    "own": {"prompt": PROMPT, "response_1": CHOSEN, "response_2": REJECTED, "choice": 1},
    "own, the other way": {
        "prompt": PROMPT,
        "response_1": REJECTED,
        "response_2": CHOSEN,
        "choice": 2,
    },
    "explicit": {"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED},
    "explicit with more columns": {
        "prompt": PROMPT,
        "response": CHOSEN,
        "chosen": CHOSEN,
        "rejected": REJECTED,
    },
    "implicit": {"chosen": PROMPT + CHOSEN, "rejected": PROMPT + REJECTED},
    "explicit messages": {
        "prompt": HISTORY,
        "chosen": CHOSEN_MESSAGE,
        "rejected": REJECTED_MESSAGE,
    },
    "implicit messages": {
        "chosen": HISTORY + CHOSEN_MESSAGE,
        "rejected": HISTORY + REJECTED_MESSAGE,
    },
    "messages that repeat the prompt": {
        "prompt": HISTORY,
        "chosen": HISTORY + CHOSEN_MESSAGE,
        "rejected": HISTORY + REJECTED_MESSAGE,
    },
}
EXPECTED = canonical_pair(Comparison("", PROMPT, CHOSEN, REJECTED, 1))


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    cells = [
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
        for row in rows
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(cells)
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_gzip(path: Path, rows: list) -> Path:
    path.write_bytes(gzip.compress(write_jsonl(path.with_suffix(".plain"), rows).read_bytes()))
    return path


WRITERS = {
    "pairs.jsonl": write_jsonl,
    "pairs.json": write_jsonl,
    "pairs.jsonl.gz": write_gzip,
    "pairs.csv": write_csv,
    "pairs.parquet": write_parquet,
}


def read_text(path: Path, text: str | bytes) -> list:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(file_source(path).read())


def labeled(row: Comparison | Quarantined) -> tuple[Pair, int | None]:
    assert isinstance(row, Comparison), row
    return canonical_pair(row)


def row_comparison(row: dict, place: str) -> Comparison | Quarantined:
    """The only row of a file, read."""
    seen = Survey("f")
    seen.add(row)
    try:
        layout = seen.layout()
    except DataError as error:
        return Quarantined(place, "refused", str(error))
    (result,) = layout.comparisons(row, place)
    return result


def reasons(rows) -> list[str | None]:
    return [row.reason if isinstance(row, Quarantined) else refusal(row) for row in rows]


# Forms of a row


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file_name", WRITERS)
def test_every_form_in_every_file_gives_the_same_pair(form, file_name, tmp_path):
    source = file_source(WRITERS[file_name](tmp_path / file_name, [FORMS[form]] * 2))
    rows = list(source.read())
    assert [row.place.rpartition(":")[0] for row in rows] == [file_name] * 2
    assert [labeled(row) for row in rows] == [EXPECTED] * 2


def test_forms_may_be_mixed_in_one_file(tmp_path):
    rows = list(file_source(write_jsonl(tmp_path / "mixed.jsonl", list(FORMS.values()))).read())
    assert {labeled(row) for row in rows} == {EXPECTED}


def test_forms_may_be_mixed_in_one_table_with_nulls(tmp_path):
    mixed = [FORMS[form] for form in ("own", "explicit", "implicit")]
    columns = {name for row in mixed for name in row}
    mixed = [{name: row.get(name) for name in columns} for row in mixed]
    rows = list(file_source(write_parquet(tmp_path / "mixed.parquet", mixed)).read())
    assert [labeled(row) for row in rows] == [EXPECTED] * 3


def test_a_system_message_leads_as_plain_text():
    system = [{"role": "system", "content": "Be brief."}]
    row = row_comparison(
        {
            "chosen": system + HISTORY + CHOSEN_MESSAGE,
            "rejected": system + HISTORY + REJECTED_MESSAGE,
        },
        "f:1",
    )
    assert row == Comparison("f:1", "Be brief." + PROMPT, CHOSEN, REJECTED, 1)


@pytest.mark.parametrize("repeats", [True, False])
def test_a_prompt_as_text_before_messages_is_the_first_user_message(repeats):
    lead = [{"role": "user", "content": "Big?"}] if repeats else []
    row = row_comparison(
        {"prompt": "Big?", "chosen": lead + CHOSEN_MESSAGE, "rejected": lead + REJECTED_MESSAGE},
        "f:1",
    )
    assert row == Comparison("f:1", "\n\nHuman: Big?\n\nAssistant:", CHOSEN, REJECTED, 1)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "first", "second"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is", " blue.", " green."),
        ("The sky is blue.", "The sky is black.", "The sky is", " blue.", " black."),
        ("Q: sky?\nA: blue", "Q: sky?\nA: red", "Q: sky?\nA:", " blue", " red"),
        ("Q: sky?\nblue", "Q: sky?\nred", "Q: sky?\n", "blue", "red"),
        ("the cat sat", "the cat, too", "the", " cat sat", " cat, too"),
        ("a cat", "a cat sat", "a cat", "", " sat"),
    ],
)
def test_texts_that_are_no_transcripts_are_cut_between_words(
    chosen, rejected, prompt, first, second
):
    row = row_comparison({"chosen": chosen, "rejected": rejected}, "f:1")
    assert row == Comparison("f:1", prompt, first, second, 1)


Q, A = "\n\nHuman: q", "\n\nAssistant: a"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "refused"),
        ({"prompt": "p", "chosen": "a"}, "refused"),
        ({"prompt": "p", "response_1": "a", "choice": 1}, "refused"),
        ({None: "p", 3: "a"}, "refused"),
        ({"prompt": 1, "chosen": "a", "rejected": "b"}, "not text"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "empty prompt"),
        ({"prompt": "p", "chosen": "a", "rejected": None}, "not text"),
        ({"prompt": "p", "chosen": "a", "rejected": 2.5}, "not text"),
        ({"prompt": "p", "chosen": {"a": 1}, "rejected": "b"}, "not text"),
        ({"prompt": "p", "chosen": b"a", "rejected": "b"}, "not text"),
        ({"prompt": "p", "chosen": CHOSEN_MESSAGE, "rejected": "b"}, "not text"),
        ({"prompt": HISTORY, "chosen": "a", "rejected": "b"}, None),
        ({"prompt": "p", "response_1": "a", "response_2": None}, "not text"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": 0}, "refused"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": True}, "refused"),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": "A"}, None),
        ({"prompt": "p", "response_1": "a", "response_2": "b", "choice": [1]}, "refused"),
        ({"chosen": "a b", "rejected": "c d"}, "no common prompt"),
        ({"chosen": "", "rejected": "c d"}, "no common prompt"),
        ({"chosen": "a b", "rejected": "a b"}, "equal responses"),
        ({"chosen": Q + A, "rejected": Q + A}, "equal responses"),
        ({"chosen": Q + A + Q, "rejected": Q + A + Q}, "no common prompt"),
        ({"chosen": Q + A, "rejected": Q + A + "b" + Q + A}, "no common prompt"),
        ({"chosen": Q + A, "rejected": Q + "?" + A}, "no common prompt"),
        ({"chosen": Q + A, "rejected": Q + " a"}, "no common prompt"),
        ({"chosen": Q + "\n\nAssistant: ", "rejected": Q + A}, "empty response"),
        ({"chosen": CHOSEN_MESSAGE, "rejected": REJECTED_MESSAGE}, "no common prompt"),
        ({"chosen": HISTORY, "rejected": HISTORY}, "bad messages"),
        ({"chosen": [], "rejected": []}, "bad messages"),
        ({"chosen": ["a"], "rejected": ["b"]}, "no common prompt"),
        ({"chosen": [{"role": "tool", "content": "a"}], "rejected": []}, "bad messages"),
        ({"chosen": [{"role": ["user"], "content": "a"}], "rejected": []}, "bad messages"),
        ({"chosen": [{"role": "user", "content": None}], "rejected": []}, "not text"),
        ({"chosen": "[{'role': 'user', 'content': 'a'}]", "rejected": "b"}, "bad messages"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "empty prompt"),
    ],
)
def test_a_row_that_is_no_pair_has_its_reason(row, reason):
    assert reasons([row_comparison(row, "f:1")]) == [reason]


@pytest.mark.parametrize("choice", [None, "", " ", float("nan")])
def test_a_choice_may_be_unknown(choice):
    row = {**FORMS["own"], "choice": choice}
    assert row_comparison(row, "f:1") == Comparison("f:1", PROMPT, CHOSEN, REJECTED, None)


@pytest.mark.parametrize("choice", [2, 2.0, "2", " 2 ", "2.0"])
def test_a_choice_may_be_written_in_many_ways(choice):
    row = row_comparison({**FORMS["own"], "choice": choice}, "f:1")
    assert isinstance(row, Comparison)
    assert row.preferred == 2


def test_a_text_in_square_brackets_is_a_text():
    row = row_comparison({"prompt": "[1, 2]", "chosen": "[3", "rejected": "[]"}, "f:1")
    assert row == Comparison("f:1", "[1, 2]", "[3", "[]", 1)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
    max_leaves=6,
)
names = st.sampled_from(["prompt", "chosen", "rejected", "response_1", "response_2", "choice"])


@given(st.dictionaries(names, values))
def test_no_row_raises(row):
    result = row_comparison(row, "f:1")
    assert result.place == "f:1"
    if isinstance(result, Comparison):
        assert all(isinstance(t, str) for t in (result.prompt, result.first, result.second))
    else:
        (result.reason + result.detail).encode()


turns = st.text(st.sampled_from("ab \n:"), min_size=1, max_size=8)


@given(st.lists(turns, min_size=1, max_size=5), turns, turns)
def test_transcripts_are_cut_after_the_history_they_share(history, chosen, rejected):
    prompt = "".join(f"\n\nHuman: {turn}\n\nAssistant: {turn}" for turn in history[:-1])
    prompt += f"\n\nHuman: {history[-1]}\n\nAssistant:"
    row = row_comparison({"chosen": prompt + chosen, "rejected": prompt + rejected}, "f:1")
    assert row == Comparison("f:1", prompt, chosen, rejected, 1)


# Files


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


# Data sets


@pytest.mark.parametrize("form", ["own", "explicit", "implicit", "implicit messages"])
@pytest.mark.parametrize("file_name", ["train.jsonl", "train-00000-of-00001.parquet", "train.csv"])
def test_a_folder_gives_the_same_pairs_as_its_file(form, file_name, tmp_path):
    writer = {".jsonl": write_jsonl, ".parquet": write_parquet, ".csv": write_csv}
    folder = tmp_path / "mine"
    folder.mkdir()
    writer[Path(file_name).suffix](folder / file_name, [FORMS[form]] * 3)
    source = hub_source(str(folder))
    rows = list(source.read())
    assert source.name == "mine:train"
    assert [row.place for row in rows] == [f"mine:train:{n}" for n in (1, 2, 3)]
    assert [labeled(row) for row in rows] == [EXPECTED] * 3


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine").mkdir()
    write_jsonl(tmp_path / "mine/train.jsonl", [FORMS["explicit"], {**FORMS["own"], "choice": 2}])
    write_jsonl(tmp_path / "mine/test.jsonl", [FORMS["explicit"]])
    return tmp_path / "mine"


def test_a_split_of_a_folder(folder):
    assert reasons(hub_source(str(folder), "test").read()) == [None]
    # The table of a data set has the columns of both forms, and nulls.
    assert reasons(hub_source(str(folder), "train").read()) == [None, None]
    with pytest.raises(DataError, match=r"no split 'nope'; there are"):
        list(hub_source(str(folder), "nope").read())


def test_a_folder_is_its_files_and_not_its_path(folder, tmp_path):
    source = hub_source(str(folder))
    moved = folder.rename(tmp_path / "moved")
    (moved / ".hidden").write_text("no data")
    assert hub_source(str(moved)) == source
    assert jsonable(hub_source(str(moved))) == jsonable(source)
    assert hub_source(str(moved), "test") != source
    with pytest.raises(DataError, match="no such folder on this host"):
        list(source.read())
    (moved / "train.jsonl").rename(moved / "train-2.jsonl")
    assert hub_source(str(moved)) != source


def test_a_folder_that_changes_is_no_longer_the_source(folder):
    source = hub_source(str(folder))
    write_jsonl(folder / "train.jsonl", [FORMS["own"]])
    with pytest.raises(DataError, match="has changed"):
        list(source.read())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"prompt": "p", "good": "a", "bad": "b"}\n', "columns are 'prompt', 'good', 'bad'"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b"}\nnot json\n', "name the file itself"),
        ("", "cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_read_is_an_error(content, sentence, tmp_path):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(DataError, match=sentence):
        list(hub_source(str(tmp_path)).read())


def test_what_is_no_data_set_is_an_error(folder):
    with pytest.raises(DataError, match="Use file_source"):
        hub_source(str(folder / "train.jsonl"))
    with pytest.raises(DataError, match="has no revision"):
        hub_source(str(folder), revision="main")
    with pytest.raises(DataError, match="neither a folder here nor an id"):
        hub_source("./no/such/folder")


def test_a_hub_data_set_is_its_revision_and_needs_no_network_to_be_named():
    commit = "0123456789abcdef" * 2 + "01234567"
    source = hub_source("someone/pairs", revision=commit)
    assert source == HubSource("someone/pairs", commit)
    assert source.name == "someone/pairs:train"
    assert source != hub_source("someone/pairs", revision="f" * 40)


def test_a_branch_of_the_hub_is_resolved_to_its_commit_and_read_from_its_snapshot(
    folder, monkeypatch
):
    import huggingface_hub

    class Info:
        sha = "a" * 40

    asked = []

    def dataset_info(self, dataset, revision=None, timeout=None):
        asked.append((dataset, revision))
        return Info()

    def snapshot_download(dataset, repo_type, revision):
        asked.append((dataset, repo_type, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    source = hub_source("someone/pairs", "test", revision="main")
    (row,) = source.read()
    assert row.place == "someone/pairs:test:1"
    assert labeled(row) == EXPECTED
    assert asked == [("someone/pairs", "main"), ("someone/pairs", "dataset", "a" * 40)]


def test_an_unreachable_hub_is_an_error_with_a_remedy(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(DataError, match=r"could not be reached.*no route.*full commit hash"):
        hub_source("someone/pairs")
    with pytest.raises(DataError, match=r"cannot be downloaded.*HF_HUB_OFFLINE"):
        list(hub_source("someone/pairs", revision="a" * 40).read())


def test_offline_an_unresolved_revision_is_an_error_with_a_remedy(monkeypatch):
    from huggingface_hub import HfApi, errors

    def offline(*args, **kwargs):
        raise errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(HfApi, "dataset_info", offline)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        hub_source("someone/pairs")


# The embedded domains


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
def test_a_domain_gives_the_same_comparisons_every_time(domain):
    source = WorldSource(50, seed=3, domain=domain)
    rows = list(source.read())
    assert rows == list(source.read())
    assert rows == list(WorldSource(80, seed=3, domain=domain).read())[:50]
    name = f"{domain.name}:3"
    assert [row.place for row in rows] == [f"{name}:{index}" for index in range(50)]
    assert source.name == name
    assert rows != list(WorldSource(50, seed=4, domain=domain).read())


def test_domains_are_different_sources_in_steps():
    assert jsonable(WorldSource(5)) == {"class": "WorldSource", "pairs": 5}
    known = {"class": "WorldSource", "pairs": 5, "domain": {"class": "Posts"}}
    assert jsonable(WorldSource(5, domain=POSTS)) == known


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
def test_the_choice_of_a_pair_hangs_on_its_texts_alone(domain):
    for row in WorldSource(50, domain=domain).read():
        pair, choice = canonical_pair(row)
        assert (row.first, row.second) == (pair.response_1, pair.response_2)
        assert choice == row.preferred


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
@pytest.mark.parametrize(
    ("noise", "low", "high"),
    [
        (UniformFlip(0.0), 1.0, 1.0),
        (UniformFlip(0.28), 0.69, 0.75),
        (BradleyTerry(0.1), 0.95, 1.0),
        (None, 0.69, 0.76),
    ],
)
def test_choices_agree_with_the_gold_reward_as_the_noise_says(domain, noise, low, high):
    agreed = []
    for row in WorldSource(3000, noise=noise, domain=domain).read():
        gold_1, gold_2 = (domain.gold(row.prompt, t).reward for t in (row.first, row.second))
        if gold_1 != gold_2:
            agreed.append((row.preferred == 1) == (gold_1 > gold_2))
    assert low <= sum(agreed) / len(agreed) <= high


def test_an_empty_domain_is_an_error():
    with pytest.raises(DataError, match="at least one"):
        WorldSource(0)
