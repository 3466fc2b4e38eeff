"""Labels out: every label finds the user's row, in his terms, in whichever order."""

import json
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import UserError
from weakteach.artifacts.store import Store
from weakteach.labeling.annotators import label_table
from weakteach.labeling.weights import pair_weights
from weakteach.models.spec import find_model
from weakteach.preferences.rows import AS_FOUND, Wishes
from weakteach.preferences.sources import data_source
from weakteach.run.export import Exporting, begin, check_out, export, least_margin
from weakteach.steps.data import Labels, Pairs, Part
from weakteach.study.policies import tokenizers_of

CASES = Path(__file__).parents[1] / "preferences/cases"


@dataclass(frozen=True)
class Oracle(Labels):
    """Chooses the response that holds "indeed"; the longer a prompt, the surer it is."""

    part: Part

    def compute(self, workspace):
        table = self.part.read(workspace.store)
        rewards = [
            [len(prompt) / 20 * ("indeed" in text) for text in responses]
            for prompt, *responses in zip(
                *(table[n].to_pylist() for n in ("prompt", "response_1", "response_2")), strict=True
            )
        ]
        labels = label_table(table["pair_id"].to_pylist(), np.array(rewards))
        pq.write_table(labels, workspace.out / "labels.parquet")
        return {"rows": len(labels)}


HOW = {"temperature": 2.0, "weighting": "C1"}


def exported(case, tmp_path, wishes=AS_FOUND, **options):
    store, out = Store(tmp_path / "store"), tmp_path / "out"
    named = list(map(str, case)) if isinstance(case, list) else str(case)
    pairs = Pairs(data_source(named, wishes), tokenizers_of(find_model("opt-45k")))
    labels = Oracle(pairs.all)
    obtain(store, labels)
    begin(out, {})
    counts = export(store, pairs, labels, out, Exporting(**{**HOW, **options}))
    read = (pq.read_table(out / f"{n}.parquet") for n in ("labels", "preferences"))
    return counts, *read


def swapped(row):
    """The row with its responses in the other order; a choice names the same text."""
    twin = {**row, "response_1": row["response_2"], "response_2": row["response_1"]}
    return twin | ({"choice": 3 - row["choice"]} if row.get("choice") else {})


READABLE = [
    "base-labeled.jsonl", "base-unlabeled-with-choices.jsonl", "choice-AB.jsonl", "form-shp.jsonl",
    "choice-zero-based.jsonl", "orca-question-ignored.jsonl", "json-array.json",
    "form-stackex.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("case", READABLE)
def test_a_label_applied_to_the_users_own_row_finds_the_right_response(case, tmp_path):
    text = (CASES / case).read_text()
    rows = json.loads(text) if case.endswith(".json") else list(map(json.loads, text.splitlines()))
    _, labels, _ = exported(CASES / case, tmp_path)
    assert labels["row"].to_pylist() == list(range(len(rows)))
    for row, label in zip(rows, labels.to_pylist(), strict=True):
        assert "indeed" in row[label["chosen_column"]]
        if "chosen" in row:
            assert "indeed" in label["chosen"]
            assert "whatever" in label["rejected"]


def test_choices_are_in_the_order_of_the_row_and_ids_are_its_own(tmp_path):
    lines = (CASES / "base-unlabeled-with-choices.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "id": f"mine-{n}"} for n, line in enumerate(lines)]
    rows = [swapped(row) if n % 2 else row for n, row in enumerate(rows)]
    del rows[3]["id"]
    again = swapped(rows[5]) | {"id": "twin"}  # the same pair, the other way round
    file = tmp_path / "rows.jsonl"
    bad = "not json\n"
    file.write_text(bad + "".join(json.dumps(row) + "\n" for row in [*rows, again]))
    counts, labels, preferences = exported(file, tmp_path)
    found = labels.to_pylist()
    assert [label["row"] for label in found] == list(range(1, len(rows) + 2))
    for row, label in zip([*rows, again], found, strict=True):
        assert "indeed" in row[f"response_{label['choice']}"]
        assert label["choice"] == row["choice"]
        assert label["id"] == row.get("id", "rows.jsonl:5")
        assert (label["chosen"], label["rejected"]) == (None, None)
    assert found[5]["pair_id"] == found[-1]["pair_id"]
    assert found[5]["choice"] == 3 - found[-1]["choice"]
    for label in found:
        rewards = [label["canonical_reward_1"], label["canonical_reward_2"]]
        assert label["canonical_choice"] == 1 + int(np.argmax(rewards))
        assert label["margin"] == pytest.approx(abs(rewards[0] - rewards[1]))
    assert counts.labels == len(rows) + 1
    assert counts.preferences == len(preferences) == len(rows)
    assert preferences["id"].to_pylist() == labels["id"].to_pylist()[:-1]
    assert all("indeed" in text for text in preferences["chosen"].to_pylist())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_the_labels_of_a_row_of_several_comparisons_have_its_number(name, tmp_path):
    rows = [
        {"prompt": f"How {n}?", "chosen": ["indeed"], "rejected": [f"no {n}", bad, f"whatever {n}"]}
        for n, bad in enumerate(["well", "", "hm"])
    ]
    if name.endswith("jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    _, labels, _ = exported(tmp_path / name, tmp_path)
    assert labels["row"].to_pylist() == [0, 0, 0, 1, 1, 2, 2, 2]
    places = [f"{name}:{1 + n}#{m}" for n in range(3) for m in (1, 2, 3)]
    assert labels["place"].to_pylist() == [p for p in places if p != f"{name}:2#2"]
    for label in labels.to_pylist():
        assert label["rejected"] in rows[label["row"]]["rejected"]


@pytest.mark.parametrize(
    ("columns", "has_texts"),
    [
        ("chosen=rejected,rejected=chosen", True),
        ("chosen=Better One,rejected=worse", True),
        ("chosen=made.good,rejected=made.bad", True),
        ("response_1=chosen_a,response_2=chosen_b", False),
        ("summaries=Both", False),
    ],
)
def test_the_chosen_column_has_the_users_own_name(columns, has_texts, tmp_path):
    def paths(row, path):
        for part in path.split("."):
            row = row[int(part)] if isinstance(row, list) else row[part]
        return row

    good, bad = "It is so, indeed.", "Whatever."
    pairs = {
        "chosen=rejected,rejected=chosen": {"chosen": bad, "rejected": good},
        "chosen=Better One,rejected=worse": {"Better One": good, "worse": bad},
        "chosen=made.good,rejected=made.bad": {"made": {"good": good, "bad": bad}},
        "response_1=chosen_a,response_2=chosen_b": {"chosen_a": bad, "chosen_b": good},
        "summaries=Both": {"Both": [{"text": bad}, {"text": good}]},
    }
    row = {"prompt": "How?", "info": {"post": "How?"}, **pairs[columns]}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    wishes = Wishes.of(columns.split(","))
    _, labels, _ = exported(file, tmp_path, wishes)
    (label,) = labels.to_pylist()
    assert paths(row, label["chosen_column"]) == good
    assert (label["chosen"], label["rejected"]) == ((good, bad) if has_texts else (None, None))
    first, second = data_source(str(file), wishes).recognized()[0].responses
    assert {paths(row, first), paths(row, second)} == {good, bad}


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_id_gives_the_place(blank, tmp_path):
    file = tmp_path / "rows.csv"
    cells = [f"{name},How {name}?,indeed,whatever\n" for name in ("a", blank, "b")]
    file.write_text("id,prompt,chosen,rejected\n" + "".join(cells))
    _, labels, preferences = exported(file, tmp_path)
    for table in (labels, preferences):
        assert table["id"].to_pylist() == ["a", "rows.csv:3", "b"]


def test_files_of_one_name_are_told_apart(tmp_path):
    names = ["en/train.jsonl", "de/train.jsonl", "old/de/train.jsonl", "more.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        row = {"prompt": f"How is {name}?", "chosen": "indeed", "rejected": "whatever"}
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    _, labels, _ = exported([tmp_path / name for name in names], tmp_path)
    told = ["en/train.jsonl", f"{tmp_path.name}/de/train.jsonl", "old/de/train.jsonl", "more.jsonl"]
    assert labels["id"].to_pylist() == labels["place"].to_pylist() == [f"{n}:1" for n in told]
    # A file that is named twice is one file.
    again = [str(tmp_path / "more.jsonl")] * 2
    assert [file.name for file in data_source(again).files] == ["more.jsonl"] * 2


def test_unsure_labels_are_left_out_of_the_preferences_alone(tmp_path):
    case = CASES / "base-labeled.jsonl"
    _, labels, _ = exported(case, tmp_path)
    limit = float(np.median(labels["confidence"].to_numpy()))
    counts, _, preferences = exported(case, tmp_path, min_confidence=limit)
    kept = labels.filter(pa.array(labels["confidence"].to_numpy() >= limit))
    assert 0 < counts.unsure == 60 - len(kept)
    assert preferences["pair_id"].to_pylist() == kept["pair_id"].to_pylist()
    assert preferences["confidence"].to_pylist() == kept["confidence"].to_pylist()


def test_the_part_with_the_largest_margins(tmp_path):
    case = CASES / "base-labeled.jsonl"
    _, labels, _ = exported(case, tmp_path)
    store = Store(tmp_path / "store")
    step = Oracle(Pairs(data_source(str(case)), tokenizers_of(find_model("opt-45k"))).all)
    least = least_margin(store, step, 0.25)
    counts, _, preferences = exported(case, tmp_path, min_margin=least)
    margins = np.sort(labels["margin"].to_numpy())[::-1]
    assert least == margins[14]
    assert counts.preferences == (margins >= least).sum() >= 15
    assert preferences["margin"].to_numpy().min() == least
    assert least_margin(store, step, 1.0) == margins[-1]


@pytest.mark.parametrize("weighting", ["C1", "C2", "C3", "C4"])
def test_probabilities_and_weights_and_a_word_on_each_column(tmp_path, weighting):
    case = CASES / "base-labeled.jsonl"
    _, labels, preferences = exported(case, tmp_path, weighting=weighting, about='{"a": 1}')
    for table in (labels, preferences):
        assert all(field.metadata[b"doc"] for field in table.schema)
        assert table.schema.metadata[b"weakteach"] == b'{"a": 1}'
        expected = 1 / (1 + np.exp(-table["margin"].to_numpy() / 2))
        np.testing.assert_allclose(table["probability"].to_numpy(), expected)
    weights = pair_weights(weighting, preferences["margin"].to_numpy())
    np.testing.assert_allclose(preferences["weight"].to_numpy(), weights)
    assert "weight" not in labels.column_names


def test_a_folder_of_another_run_is_not_overwritten_in_silence(tmp_path):
    out = tmp_path / "out"
    begin(out, {"seed": 0})
    (out / "labels.parquet").touch()
    check_out(out, {"seed": 0}, overwrite=False)
    check_out(out, {"seed": 1}, overwrite=True)
    with pytest.raises(UserError, match=r"labels.parquet of another run: .*--overwrite"):
        check_out(out, {"seed": 1}, overwrite=False)
    begin(out, {"seed": 1})
    assert not (out / "labels.parquet").exists()
    # Nor is a file that is an input, whatever the user says.
    with pytest.raises(UserError, match=r"asked.csv lies there"):
        check_out(out, {"seed": 1}, overwrite=True, inputs=["x.csv", str(out / "asked.csv")])
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        check_out(file / "out", {}, overwrite=False)


def test_messages_come_out_as_trl_has_them_with_all_that_they_hold(tmp_path):
    file = CASES / "form-toolcalls.jsonl"
    counts, _, preferences = exported(file, tmp_path)
    assert not counts.mixed
    rows = list(map(json.loads, file.read_text().splitlines()))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out/preferences.parquet"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    for row, mine in zip(loaded, rows, strict=True):
        assert [m["role"] for m in row["prompt"]] == ["user"]
        for side in ("chosen", "rejected"):
            said = [{"content": "", **m} for m in mine[side] if m["role"] != "user"]
            assert row[side] == said
        assert any("tool_calls" in message for message in row["chosen"] + row["rejected"])
    assert "tools" not in preferences.column_names


def test_texts_come_out_as_texts_and_so_do_texts_among_messages(tmp_path):
    text = {"prompt": "How do I go?", "chosen": "indeed", "rejected": "whatever"}
    chat = {
        "prompt": [{"role": "user", "content": "How?"}],
        "chosen": [{"role": "assistant", "content": "indeed"}],
        "rejected": [{"role": "assistant", "content": "whatever"}],
        "tools": [{"name": "look"}],
    }
    for name, rows in {"text": [text], "both": [text, chat], "chat": [chat]}.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        counts, _, preferences = exported(file, tmp_path / name)
        assert counts.mixed == (name == "both")
        found = preferences.to_pylist()
        if name == "chat":
            assert found[0]["chosen"] == chat["chosen"]
            assert json.loads(found[0]["tools"]) == chat["tools"]
        else:
            assert {row["chosen"].strip() for row in found} == {"indeed"}
