"""Forms of public data sets as they are published, one small file each."""

import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weakteach.preferences.forms import folded_choice
from weakteach.preferences.messages import messages_of
from weakteach.preferences.pair import Comparison, DataError, Quarantined
from weakteach.preferences.sources import data_source


def read(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(data_source(str(path)).read())


def texts(found):
    return [(c.prompt, c.first, c.second, c.preferred) for c in found if isinstance(c, Comparison)]


def reasons(found):
    return [row.reason for row in found if isinstance(row, Quarantined)]


def answer(text, rank):
    return {"answer": text, "model": "m", "rank": rank}


def test_nectar_holds_the_best_answer_against_each_other_one(tmp_path):
    prompt = "\n\nHuman: How?\n\nAssistant: "
    row = {"prompt": prompt, "num_responses": 3, "turns": 1, "source": ["x"], "good_natured": True}
    rows = [
        {**row, "answers": [answer("meh", 2.0), answer("indeed", 1.0), answer("whatever", 3.0)]},
        {**row, "answers": [answer("a", 1.0), answer("b", 1.0), answer("c", 2.0)]},
        {**row, "answers": [answer("a", 1.0)]},
        {**row, "answers": [answer("a", None), answer("b", 1.0)]},
    ]
    found = read(tmp_path, rows)
    assert texts(found) == [(prompt, "indeed", "meh", 1), (prompt, "indeed", "whatever", 1)]
    assert [row.place for row in found[:2]] == ["rows.jsonl:1#1", "rows.jsonl:1#2"]
    assert reasons(found) == ["tie", "tie", "bad choice"]
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "rows.parquet")
    assert texts(data_source(str(tmp_path / "rows.parquet")).read()) == texts(found)


def test_raw_ultrafeedback_is_read_by_its_overall_scores(tmp_path):
    def completion(text, score):
        return {
            "annotations": {"helpfulness": {"Rating": "4"}}, "critique": "fine", "model": "m",
            "custom_system_prompt": "s", "principle": "honesty", "overall_score": score,
            "fine-grained_score": 4.0, "response": text,
        }  # fmt: skip

    row = {"source": "evol", "instruction": "How?", "models": ["m"] * 3, "correct_answers": ["N"],
           "incorrect_answers": ["N"]}  # fmt: skip
    done = [completion("whatever", 6.0), completion("indeed", 8.5), completion("meh", 7.0)]
    found = read(tmp_path, [{**row, "completions": done}, {**row, "completions": []}])
    assert texts(found) == [("How?", "indeed", "whatever", 1), ("How?", "indeed", "meh", 1)]
    assert reasons(found) == ["tie"]


def votes(*values, status="submitted"):
    return [{"user_id": str(n), "value": v, "status": status} for n, v in enumerate(values)]


@pytest.mark.parametrize("table", [False, True], ids=["rows", "columns"])
def test_argillas_annotators_vote(tmp_path, table):
    """Records of its first version: fields as columns, each question with all its answers."""

    def record(n, answers):
        if table:  # as the hub's Parquet files have them
            answers = {k: [one[k] for one in answers] for k in ("user_id", "value", "status")}
        return {"request": f"How {n}?", "response-1": "whatever", "response-2": "indeed",
                "choose-best": answers, "choose-best-suggestion": None, "external_id": str(n),
                "metadata": "{}"}  # fmt: skip

    rows = [
        record(0, votes(2)),
        record(1, votes(2, 1, 2)),
        record(2, votes(1, 2)),
        record(3, []),
        record(4, votes(1) + votes(2, 2, status="discarded")),
    ]
    found = read(tmp_path, rows)
    assert [row[3] for row in texts(found)] == [2, 2, None, 1]
    assert reasons(found) == ["tie"]
    assert [row[0] for row in texts(found)] == ["How 0?", "How 1?", "How 3?", "How 4?"]


def test_argillas_rankings_stand_for_their_first():
    ranking = {"rank": [2, 1], "value": ["response-1", "response-2"]}
    listed = [{"rank": 1, "value": "response-1"}, {"rank": 2, "value": "response-2"}]
    assert folded_choice(votes(ranking)) == "response_2"
    assert folded_choice(votes(ranking, ranking, listed)) == "response_2"
    assert folded_choice(votes(ranking, listed)) == "tie"
    assert folded_choice(votes({"rank": [1, 1], "value": ["a", "b"]})) == "tie"
    assert folded_choice(votes({"rank": [2], "value": ["a"]})) is None
    assert folded_choice([]) is folded_choice({}) is folded_choice([{"value": None}]) is None
    assert [folded_choice(v) for v in ([1], {"x": [1]}, [{"x": 1}])] == [
        "[1]", "{'x': [1]}", "[{'x': 1}]",
    ]  # fmt: skip


def test_argillas_binarized_preferences_and_distilabels_ratings(tmp_path):
    binarized = {"instruction": "How?", "chosen_response": "indeed", "rejected_response": "well",
                 "chosen_avg_rating": 5.0, "rejected_avg_rating": 2.0}  # fmt: skip
    assert texts(read(tmp_path, [binarized])) == [("How?", "indeed", "well", 1)]
    rated = [
        {"instruction": "How?", "generations": ["whatever", "indeed"], "ratings": [2.0, 4.5]},
        {"instruction": "Why?", "generations": ["whatever", "indeed"], "ratings": [3, 3]},
        {"instruction": "Who?", "generations": ["whatever", "indeed"], "ratings": [3]},
        {"instruction": "Who?", "generations": ["whatever", "indeed"], "ratings": None},
        {"instruction": "Who?", "generations": ["whatever", "indeed"], "ratings": [1, "x"]},
    ]
    found = read(tmp_path, rated)
    assert texts(found) == [("How?", "indeed", "whatever", 1)]
    assert reasons(found) == ["tie", "bad choice", "bad choice", "bad choice"]
    with pytest.raises(DataError, match="'generations'"):
        read(tmp_path, [{"instruction": "How?", "generations": ["a", "b"]}])


ROWS = [{"prompt": f"How {n}?", "chosen": "in\tdeed, é", "rejected": "whatever"} for n in range(3)]


@pytest.mark.parametrize("compression", ["", "gz", "xz", "zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "ndjson", "csv", "tsv"])
def test_every_kind_of_text_in_every_compression(tmp_path, kind, compression):
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
        text = "".join(mark.join(f'"{cell}"' for cell in line) + "\r\n" for line in cells)
    elif kind == "json":
        text = json.dumps(ROWS, indent=1)
    else:
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    data = text.encode()
    packed = {
        "": lambda: data,
        "gz": lambda: gzip.compress(data),
        "xz": lambda: lzma.compress(data),
        "zst": lambda: pa.Codec("zstd").compress(data, asbytes=True),
    }[compression]()
    path = tmp_path / ".".join(filter(None, ["rows", kind, compression]))
    path.write_bytes(packed)
    found = list(data_source(str(path)).read())
    assert texts(found) == [(r["prompt"], r["chosen"], r["rejected"], 1) for r in ROWS]
    bare = tmp_path / f"bare.{kind}"  # by its content, whatever its name says
    bare.write_bytes(packed)
    assert texts(data_source(str(bare)).read()) == texts(found)
    if compression:
        path.write_bytes(packed[: len(packed) - 9])
        with pytest.raises(DataError, match=rf"rows\.{kind}\.{compression}"):
            list(data_source(str(path)).read())


LOOK = [{"type": "function", "function": {"name": "look", "description": "é"}}]
SAID = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
ASKED = [{"role": "user", "content": "How?"}]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("tools", [LOOK, json.dumps(LOOK), json.dumps(LOOK, ensure_ascii=False)])
def test_tools_are_a_list_or_json_text_of_one(tmp_path, kind, tools):
    openai = {
        "input": {"messages": ASKED, "tools": tools},
        "preferred_output": SAID["chosen"],
        "non_preferred_output": SAID["rejected"],
    }
    for row in ({"prompt": ASKED, **SAID, "tools": tools}, openai):
        path = tmp_path / f"rows.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            path.write_text(json.dumps(row))
        source = data_source(str(path))
        (found,) = source.read()
        assert found.messages.tools == json.dumps(LOOK, ensure_ascii=False)
        assert source.recognized()[0].unused == ()


@pytest.mark.parametrize("tools", [None, [], "", " ", "[]"])
def test_a_row_may_have_no_tools(tmp_path, tools):
    (found,) = read(tmp_path, [{"prompt": ASKED, **SAID, "tools": tools}])
    assert found.messages.tools is None


@pytest.mark.parametrize("tools", ["look", '{"name": "look"}', "[", '"[]"', {"name": "look"}, 3])
def test_tools_that_are_no_list_are_refused(tmp_path, tools):
    found = read(tmp_path, [{"prompt": ASKED, **SAID, "tools": tools}])
    assert reasons(found) == ["bad messages"]
    assert "tools is no list" in found[0].detail


LEAD = "\n\nHuman: What is 20 + 2?\n\nAssistant:"
CALLED = " sum(20, 2)\n\nTool: 22\n\nAssistant: It is 22, indeed."


def test_turns_of_tools_in_transcripts_belong_to_the_answer(tmp_path):
    later = "\n\nHuman: Sure?\n\nAssistant:"
    two = " sum(20, 2)\n\nTool: 2\n\nTool: 2\n\nAssistant: sum(2)\n\nTool: 22\n\nAssistant: 22."
    rows = [
        {"chosen": LEAD + CALLED, "rejected": LEAD + " Whatever."},
        {"chosen": LEAD + two, "rejected": LEAD + CALLED},
        {"chosen": LEAD + CALLED + later + " Yes.", "rejected": LEAD + CALLED + later + " No."},
        {"chosen": LEAD + CALLED, "rejected": "\n\nHuman: Hi\n\nAssistant: Whatever."},
    ]
    found = read(tmp_path, rows)
    assert texts(found) == [
        (LEAD, CALLED, " Whatever.", 1),
        (LEAD, two, CALLED, 1),
        (LEAD + CALLED + later, " Yes.", " No.", 1),
    ]
    assert reasons(found) == ["no common prompt"]
    assert [m["role"] for m in messages_of(LEAD)] == ["user"]
    asked = [m["role"] for m in messages_of(LEAD + CALLED + later)]
    assert asked == ["user", "assistant", "tool", "assistant", "user"]
