"""Small files in the forms of public data sets and of inputs that were read wrong once.

In every pair the good answer holds "indeed" and the bad one "whatever".
"""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from weakteach.preferences.pair import Comparison, DataError
from weakteach.preferences.rows import AS_FOUND, Wishes
from weakteach.preferences.sources import data_source
from weakteach.preferences.table import write_pairs

CASES = Path(__file__).parent / "cases"


def tables(case: str, out: Path, wishes: Wishes = AS_FOUND):
    source = data_source(str(CASES / case), wishes)
    counts = write_pairs(source.read(), out, source.name, lambda pairs: [1] * len(pairs), 512)
    told = source.overview()
    assert (told.rows, told.pairs, told.choices) == tuple(
        counts[name] for name in ("rows", "pairs", "choices")
    )
    read = {
        n: pq.read_table(out / f"{n}.parquet") for n in ("pairs", "choices", "rows", "quarantine")
    }
    assert len(read["rows"]) == counts["rows"] == counts["pairs"] + counts["quarantined"]
    return told, {name: table.to_pylist() for name, table in read.items()}


# Case: pairs, choices, and what all prompts hold.
READ = {
    "base-labeled.jsonl": (60, 60),
    "base-unlabeled-with-choices.jsonl": (60, 60),
    "blank-prompt-transcripts.jsonl": (60, 60),
    "both-forms.jsonl": (60, 60),
    "choice-AB.jsonl": (60, 60),
    "choice-zero-based.jsonl": (60, 60),
    "csv-capital-header.csv": (60, 60),
    "csv-semicolon.csv": (60, 60),
    "csv-stray-quote.csv": (59, 59),
    "distilabel-input-ignored.jsonl": (60, 60),
    "few[[]final].jsonl": (60, 60),
    "folder-save-to-disk": (60, 60),
    "folder-shards": (60, 60),
    "folder-shards/*.parquet": (60, 60),
    "folder-split-train_prefs": (60, 60),
    "folder-split-train_prefs:test_prefs": (60, 60),
    "form-alpacafarm.jsonl": (60, 60),
    "form-arena.jsonl": (51, 51),
    "form-arena_kaggle.csv": (60, 60),
    "form-content_parts.jsonl": (60, 60),
    "form-developer.jsonl": (60, 60),
    "form-dict_struct.parquet": (60, 60),
    "form-helpsteer3.jsonl": (60, 60),
    "form-many_rejected.jsonl": (180, 180),
    "form-oasst.jsonl": (60, 60),
    "form-openai_dpo.jsonl": (60, 60),
    "form-pku.jsonl": (60, 60),
    "form-prompt_messages_text.jsonl": (60, 60),
    "form-roles_caps.jsonl": (60, 60),
    "form-sharegpt.jsonl": (60, 60),
    "form-shp.jsonl": (60, 60),
    "form-single_message.jsonl": (60, 60),
    "form-stackex.jsonl": (60, 60),
    "form-summarize.jsonl": (60, 60),
    "form-toolcalls.jsonl": (60, 60),
    "gzip-without-gz.jsonl": (60, 60),
    "helpsteer2.jsonl.gz": (60, 60),
    "json-array-labelstudio.json": (20, 20),
    "json-array.json": (60, 60),
    "json-wrapped.json": (60, 60),
    "orca-question-ignored-unlabeled.jsonl": (60, 60),
    "orca-question-ignored.jsonl": (60, 60),
    "pairs.json.gz": (60, 60),
    "pairs.ndjson": (60, 60),
    "partly-labeled.jsonl": (100, 2),
    "powershell-utf16.jsonl": (60, 60),
    "prompt-repeated-in-texts.jsonl": (60, 60),
    "system-column-dropped.jsonl": (60, 60),
    "utf16.csv": (60, 60),
}


@pytest.mark.parametrize("case", READ)
def test_the_good_answer_is_the_chosen_one(case, tmp_path):
    told, read = tables(case, tmp_path)
    assert (told.pairs, told.choices) == READ[case]
    choices = {row["pair_id"]: row["choice"] for row in read["choices"]}
    for pair in read["pairs"]:
        assert "How do I" in pair["prompt"]
        texts = [pair["response_1"], pair["response_2"]]
        assert all("How do I" not in text for text in texts)
        assert sum("indeed" in text for text in texts) == sum("whatever" in t for t in texts) == 1
        if choice := choices.get(pair["pair_id"]):
            assert "indeed" in texts[choice - 1]
    by_id = {pair["pair_id"]: pair for pair in read["pairs"]}
    for row in read["rows"]:
        if row["reason"] is None:
            texts = [by_id[row["pair_id"]][f"response_{n}"] for n in (1, 2)]
            first = texts[1] if row["swapped"] else texts[0]
            assert row["choice"] is None or ("indeed" in first) == (row["choice"] == 1)


REFUSED = {
    "duplicate-column.csv": r"two columns of one name, 'chosen'",
    "form-kto.jsonl": r"'completion', 'label'.*KTO.*as chosen and rejected",
    "form-redteam.jsonl": r"'transcript'.*one transcript a row",
    "git-lfs-pointer.jsonl": r"pointer of git-lfs.*git lfs pull",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_says_why_and_what_helps(case):
    with pytest.raises(DataError, match=REFUSED[case]) as error:
        data_source(str(CASES / case))
    assert case in str(error.value)
    assert "\n" not in str(error.value)


def test_contradictory_choices_take_both_out(tmp_path):
    told, read = tables("contradictory-labels.jsonl", tmp_path)
    assert told.reasons == {"contradictory choices": 40}
    assert told.pairs == 40
    assert told.loses_many
    assert {q["reason"] for q in read["quarantine"]} == {"contradictory choices"}


def test_responses_that_differ_by_a_space_are_equal(tmp_path):
    told, _ = tables("differ-by-a-space.jsonl", tmp_path)
    assert told.reasons["equal responses"] == told.rows - told.pairs > 0


def test_a_line_with_an_open_quote_is_quarantined_alone(tmp_path):
    _, read = tables("csv-stray-quote.csv", tmp_path)
    (bad,) = read["quarantine"]
    assert (bad["place"], bad["reason"]) == ("csv-stray-quote.csv:11", "bad CSV")


def test_ties_are_counted(tmp_path):
    told, _ = tables("form-arena.jsonl", tmp_path)
    assert told.reasons == {"tie": 9}


def test_system_texts_lead_the_prompt(tmp_path):
    _, read = tables("system-column-dropped.jsonl", tmp_path)
    leading = sum(p["prompt"].startswith("Answer as a pirate.\n\nHow") for p in read["pairs"])
    assert leading == 30
    assert [row["id"] for row in read["rows"]][:3] == ["0", "1", "2"]
    _, read = tables("orca-question-ignored.jsonl", tmp_path)
    assert all(p["prompt"].startswith("You are an AI assistant.\n\nHow") for p in read["pairs"])


def test_calls_of_tools_are_part_of_the_response(tmp_path):
    _, read = tables("form-toolcalls.jsonl", tmp_path)
    for pair in read["pairs"]:
        assert pair["prompt"].endswith("\n\nAssistant:")
        assert sum("\n\nTool: 22\n\nAssistant:" in pair[f"response_{n}"] for n in (1, 2)) == 1
        assert sum("tool_calls" in pair[f"response_{n}_messages"] for n in (1, 2)) == 1


def test_a_prompt_that_begins_both_texts_is_told(tmp_path):
    told, _ = tables("prompt-repeated-in-texts.jsonl", tmp_path)
    assert any("is read once" in note for note in told.files[0].notes)


def test_the_coding_of_choices_is_told():
    for case, coding in (
        ("choice-zero-based.jsonl", "0 = first response, 1 = second response"),
        ("choice-AB.jsonl", "a = first response, b = second response"),
        ("helpsteer2.jsonl.gz", "below 0 = first response, above 0 = second response"),
    ):
        (file,) = data_source(str(CASES / case)).recognized()
        assert file.choices == coding


def test_columns_and_choice_values_are_the_users_to_name(tmp_path):
    rows = [{"ask": f"q{n}", "one": "a", "two": "b", "choice": "x"} for n in range(3)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = (("prompt", "ask"), ("response_1", "one"), ("response_2", "two"))
    with pytest.raises(DataError, match=r"own\.jsonl: it cannot be told.*--choice-values A,B"):
        data_source(str(path), Wishes(columns))
    first, *_ = data_source(str(path), Wishes(columns, ("y", "x"))).read()
    assert first == Comparison("own.jsonl:1", "q0", "a", "b", 2)
