import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from on_this_ray import on_this_ray
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.cli import app
from weakteach.labeling.forms import FORMS
from weakteach.models.loading import Weights, load_causal
from weakteach.models.tiny.family import base_folder
from weakteach.models.tokens import load_tokenizer
from weakteach.run.terminal import run


def weakteach(*arguments):
    """As a user runs it, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "weakteach", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return done.returncode, done.stdout, done.stderr


# Two trainings for the verdict, on halves.
QUICK = ("--held-out", 0.5, "--curve", 0, "--other-seeds", 0)


@pytest.fixture(scope="module")
def labeled(ray_here, tmp_path_factory):
    """Two files of the world's pairs, labeled by a tiny teacher; the exit code and what was
    printed."""
    folder = tmp_path_factory.mktemp("label")
    few, many = folder / "few[final].jsonl", folder / "many.jsonl"
    assert run(app, ["world", "300", "--out", str(few)]) == 0
    assert run(app, ["world", "200", "--start", "300", "--out", str(many)]) == 0
    posts = folder / "posts.jsonl"
    assert run(app, ["world", "40", "--domain", "posts", "--out", str(posts)]) == 0
    with many.open("a") as file:
        file.write('{"prompt": "p", "chosen": "same", "rejected": "same"}\nnot json\n')
    words = (
        *("label", "--labeled", few, "--unlabeled", many, "--teacher", "opt-45k", *QUICK),
        *("--out", folder / "out", "--storage", folder / "store", "--no-gate"),
        *("--label-price", 0.5, "--weights", "C4", "--elsewhere", posts),
    )
    out, err = io.StringIO(), io.StringIO()
    with on_this_ray(), redirect_stdout(out), redirect_stderr(err):
        code = run(app, list(map(str, words)))
    return folder, (code, out.getvalue(), err.getvalue())


def test_label_writes_a_label_for_every_pair_and_says_how_good_the_teacher_is(labeled):
    folder, (code, out, err) = labeled
    assert code == 0, err
    assert "few[final].jsonl: 300 rows = 300 pairs + 0 in quarantine" in out
    assert "many.jsonl: 202 rows = 200 pairs + 2 in quarantine" in out
    assert "chosen and rejected: prompt from prompt, responses from chosen and rejected" in out
    assert "bad JSON" in out
    assert "many.jsonl:202" in out
    assert "Teacher accuracy on held-out human choices" in out
    assert "Agreement with the human choices of the unlabeled file" in out
    assert "95 % interval" in out
    assert "INFO" not in out + err
    verdict = json.loads((folder / "out" / "verdict.json").read_text())
    assert out.splitlines()[-1] == verdict["advice"]["sentence"]
    assert verdict["facts"]["pairs"] == 300
    assert verdict["seen"]["pairs"] == verdict["to_label"] == 200
    assert verdict["routing"][-1]["cost"] == 100
    (elsewhere,) = verdict["facts"]["transfer"]
    assert (elsewhere["name"], elsewhere["accuracy"]["prompts"]) == ("posts.jsonl", 40)
    page = (folder / "out" / "report.html").read_text()
    assert html.escape(verdict["advice"]["sentence"]) in page
    labels = pq.read_table(folder / "out" / "labels.parquet").to_pandas()
    assert len(labels) == 200
    assert labels["pair_id"].is_unique
    assert labels["id"].tolist() == [f"many.jsonl:{n}" for n in range(1, 201)]
    for row, label in zip((folder / "many.jsonl").open(), labels.itertuples(), strict=False):
        texts = json.loads(row)
        assert label.chosen == texts[label.chosen_column]
        assert label.choice == 1 + (label.chosen_column == "rejected")
    assert labels["confidence"].between(0, 1).all()
    calibrated = 1 / (1 + np.exp(-labels["margin"] / verdict["facts"]["temperature"]))
    np.testing.assert_allclose(labels["probability"], calibrated)
    quarantine = pq.read_table(folder / "out" / "quarantine.parquet").to_pandas()
    assert sorted(quarantine["reason"]) == ["bad JSON", "equal responses"]
    assert set(quarantine["place"]) == {"many.jsonl:201", "many.jsonl:202"}


def test_preferences_load_with_datasets_and_feed_trl_unchanged(labeled, tmp_path):
    folder, _ = labeled
    loaded = datasets.load_dataset(
        "parquet",
        data_files=str(folder / "out" / "preferences.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    columns = {"id", "prompt", "chosen", "rejected", "margin", "probability", "weight"}
    assert columns <= set(loaded.column_names)
    np.testing.assert_allclose(loaded["weight"], np.minimum(0.2 * np.array(loaded["margin"]), 1))
    base = base_folder("opt-45k")
    trainer = DPOTrainer(
        model=load_causal(Weights(str(base))),
        ref_model=load_causal(Weights(str(base))),
        args=DPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            gradient_checkpointing=False,
            report_to="none",
        ),
        train_dataset=loaded,
        processing_class=load_tokenizer(base),
    )
    assert trainer.train().global_step == 2


def test_human_choices_of_the_unlabeled_file_change_no_label(labeled, here_on_ray, tmp_path):
    folder, _ = labeled
    swapped = tmp_path / "many.jsonl"
    rows = [json.loads(line) for line in (folder / "many.jsonl").read_text().splitlines()[:200]]
    flipped = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in rows]
    swapped.write_text("".join(json.dumps(row) + "\n" for row in flipped))
    code, _, err = here_on_ray(
        *("label", "--labeled", folder / "few[final].jsonl", "--unlabeled", swapped),
        *("--teacher", "opt-45k", "--out", tmp_path / "out", "--storage", folder / "store"),
        *("--no-gate", "--weights", "C4", *QUICK),
    )
    assert code == 0, err
    before, after = (
        pq.read_table(place / "out" / "preferences.parquet").to_pylist()
        for place in (folder, tmp_path)
    )
    assert [row | {"id": ""} for row in before] == [row | {"id": ""} for row in after]


def test_labels_have_a_card_that_says_whose_they_are(labeled):
    folder, _ = labeled
    facts = json.loads((folder / "out" / "verdict.json").read_text())["facts"]
    card = (folder / "out" / "README.md").read_text()
    for words in ("many.jsonl", r"few\[final\].jsonl", "opt-45k", "C4: ", "95 % interval",
                  f"{facts['accuracy']['value']:.1%}", f"{facts['after']['ece']:.3f}"):  # fmt: skip
        assert words in card, words
    for name in ("labels", "preferences"):
        schema = pq.read_schema(folder / "out" / f"{name}.parquet")
        told = json.loads(schema.metadata[b"weakteach"])
        assert told["accuracy"]["value"] == facts["accuracy"]["value"]
        assert told["temperature"] == facts["temperature"]
        assert (told["teacher"], told["labeled"]) == ("opt-45k", "few[final].jsonl")
        assert all(field.metadata[b"doc"] for field in schema)


@pytest.mark.slow
def test_asked_pairs_are_filled_in_and_given_back(labeled, here_on_ray, tmp_path):
    folder, _ = labeled
    few, plain, out = folder / "few[final].jsonl", tmp_path / "plain.jsonl", tmp_path / "out"
    here_on_ray("world", 60, "--start", 600, "--no-choices", "--out", plain)
    known = [json.loads(line) for line in few.read_text().splitlines()[:3]]
    with plain.open("a") as file:
        for row in known:  # what humans have labeled already
            both = {"response_1": row["chosen"], "response_2": row["rejected"]}
            file.write(json.dumps({"prompt": row["prompt"], **both}) + "\n")
    asking = ("label", "--unlabeled", plain, "--teacher", "opt-45k", *QUICK, "--no-gate")
    asking += ("--storage", folder / "store", "--ask-humans", 6)
    code, told, err = here_on_ray(*asking, "--labeled", few, "--out", out)
    assert code == 0, err
    assert "6 pairs for humans to label" in told
    assert {name for name in FORMS if (out / name).exists()} == set(FORMS)
    with (out / "asked.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 6
    assert not {row["prompt"] for row in rows} & {row["prompt"] for row in known}
    for number, row in enumerate(rows[:-1]):  # a person leaves the last one open
        row["choice"] = str(1 + number % 2)
    with (out / "asked.csv").open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    filled = (out / "asked.csv").read_bytes()
    # The same run leaves a person's work alone, and no other run may delete it.
    assert here_on_ray(*asking, "--labeled", few, "--out", out)[0] == 0
    assert (out / "asked.csv").read_bytes() == filled
    both = ("--labeled", few, "--labeled", out / "asked.csv")
    code, _, err = here_on_ray(*asking, *both, "--out", out, "--overwrite")
    assert code == 2
    assert "asked.csv lies there" in err
    code, told, err = here_on_ray(*asking, *both, "--out", tmp_path / "next")
    assert code == 0, err
    verdict = json.loads((tmp_path / "next/verdict.json").read_text())
    assert verdict["facts"]["pairs"] == 305
    assert verdict["seen"]["same_pair"] == 8
    with (tmp_path / "next/asked.csv").open(newline="", encoding="utf-8") as text:
        again = {row["pair_id"] for row in csv.DictReader(text)}
    assert len(again) == 6
    assert not again & {row["pair_id"] for row in rows[:-1]}


def test_gc_keeps_what_a_run_is_made_of_until_it_is_forgotten(labeled, here):
    folder, _ = labeled
    store = ("--storage", folder / "store")
    code, out, _ = here("gc", *store, "--dry-run")
    assert code == 0
    assert "Nothing to drop" in out
    name = min(path.name for path in (folder / "store" / "studies").iterdir())
    code, out, _ = here("gc", *store, "--drop", name, "--dry-run")
    assert code == 0
    assert "WeakLabels" in out


def test_two_models_of_one_name_are_a_mistake(labeled, here, tmp_path):
    folder, _ = labeled
    shutil.copytree(base_folder("opt-45k"), tmp_path / "a/final")
    shutil.copytree(base_folder("opt-230k"), tmp_path / "b/final")
    given = ("--labeled", folder / "few[final].jsonl", "--unlabeled", folder / "many.jsonl")
    teachers = ("--teacher", tmp_path / "a/final", "--rivals", tmp_path / "b/final")
    code, _, err = here("label", *given, *teachers, "--out", tmp_path / "out")
    assert code == 2
    assert "Two different models are called final" in err


def test_show_prints_the_record_and_the_lineage(labeled, here):
    folder, _ = labeled
    labels = min(path.name for path in (folder / "store" / "WeakLabels").iterdir())
    code, out, _ = here("show", labels[:10], "--storage", folder / "store")
    assert code == 0
    assert f'"fingerprint": "{labels}"' in out
    for kind in ("Dpo/", "Sft/", "HumanLabels/", "Pairs/"):
        assert kind in out
    code, _, err = here("show", "nothing", "--storage", folder / "store")
    assert code == 2
    assert "holds no artifact nothing" in err


def test_pretrain_writes_a_model_that_can_be_named(here, tmp_path):
    out = tmp_path / "model"
    assert here("pretrain", "opt-45k", "--out", out, "--documents", 64)[0] == 0
    assert load_causal(Weights(str(out))).config.hidden_size == 32
    code, _, err = here("pretrain", "opt-45k", "--out", out)
    assert code == 2
    assert "not empty" in err


BAD = {
    "no such file": (["--labeled", "none.jsonl"], "none.jsonl"),
    "empty file": (["--labeled", "empty.jsonl"], "empty"),
    "unknown model": (["--teacher", "opt-9k"], "Unknown model 'opt-9k'"),
    "model that no hub knows": (["--teacher", "gpt-9"], "Model gpt-9 is neither embedded nor"),
    "markup in a name": (["--unlabeled", "x[/v2].jsonl"], "x[/v2].jsonl: no such file"),
    "share above one half": (["--held-out", "0.6"], "--held-out"),
    "share of all": (["--curve", "1"], "--curve: a share lies between 0 and 1"),
    "accuracy of one": (["--min-accuracy", "1"], "--min-accuracy"),
    "unknown weights": (["--weights", "C5"], "C4"),
    "no such rival": (["--rivals", "opt-9k"], "Unknown model 'opt-9k'"),
    "nobody to ask": (["--ask-humans", "3"], "every pair of many.jsonl has a human choice"),
    "no choices elsewhere": (["--elsewhere", "plain.jsonl"], "no row says which response"),
    "too few tokens": (["--max-tokens", "7"], "--max-tokens"),
    "no threads": (["--threads", "0"], "--threads: 0 is out of range"),
    "cluster that does not answer": (["--address", "127.0.0.1:1"], "at 127.0.0.1:1 (--address)"),
    "unknown preset": (["--preset", "big"], "embedded"),
    "columns without a name": (["--columns", "prompt"], "prompt=question"),
    "column that is not there": (["--columns", "prompt=topic"], "no column 'topic'"),
    "one choice value": (["--choice-values", "A"], "--choice-values takes two"),
    "folder of another run": (["--out", "taken"], "--overwrite"),
    "folder that is a file": (["--out", "odd.csv"], "odd.csv is a file"),
    "storage that is a file": (["--storage", "odd.csv"], "odd.csv"),
    "no choice": (["--labeled", "plain.jsonl"], "no row says which response a human chose"),
    "one labeled prompt": (["--labeled", "one.jsonl"], "at least 2 are needed"),
    "all rows bad": (["--labeled", "bad.jsonl"], "the first (bad.jsonl:1) for: bad JSON"),
    "unknown columns": (["--unlabeled", "odd.csv"], "odd.csv"),
}


@pytest.mark.parametrize(("options", "sentence"), BAD.values(), ids=BAD)
def test_a_users_mistake_is_one_sentence(labeled, here, tmp_path, options, sentence):
    folder, _ = labeled
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.jsonl").write_text("not json\n")
    plain = {"prompt": "p", "response_1": "a", "response_2": "b"}
    (tmp_path / "plain.jsonl").write_text(json.dumps(plain) + "\n")
    (tmp_path / "one.jsonl").write_text(json.dumps(plain | {"choice": "1"}) + "\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/labels.parquet").touch()
    given = {"--labeled": folder / "few[final].jsonl", "--unlabeled": folder / "many.jsonl"}
    given |= {"--teacher": "opt-45k", "--out": tmp_path / "out", "--storage": tmp_path / "store"}
    name, value = options
    is_file = Path(value).suffix in (".jsonl", ".csv")
    given[name] = tmp_path / value if is_file or name == "--out" else value
    code, out, err = here("label", *(item for pair in given.items() for item in pair))
    assert code == 2, out + err
    assert sentence in err
    assert "Traceback" not in out + err
    in_quarantine = value in ("plain.jsonl", "one.jsonl", "bad.jsonl", "3")
    assert (tmp_path / "out/quarantine.parquet").exists() == in_quarantine


def test_pairs_that_are_all_too_long_are_in_quarantine_when_a_run_fails(labeled, tmp_path):
    folder, _ = labeled
    code, out, err = weakteach(
        *("label", "--labeled", folder / "few[final].jsonl", "--unlabeled", folder / "many.jsonl"),
        *("--teacher", "opt-45k", "--out", tmp_path / "out", "--storage", tmp_path / "store"),
        *("--max-tokens", 8),
    )
    assert code == 2, out + err
    assert "none of its 300 pairs can be read by opt-45k" in err
    assert "give a larger --max-tokens" in err
    quarantine = pq.read_table(tmp_path / "out/quarantine.parquet")
    assert set(quarantine["reason"].to_pylist()) == {"too long", "bad JSON", "equal responses"}


CASES = Path(__file__).parent / "preferences/cases"


def test_a_teacher_not_told_from_chance_labels_nothing_unless_asked_to(here_on_ray, tmp_path):
    """Coin flips: with the pairs that it learned from, a teacher would seem to know them."""
    few, out = CASES / "leak-coin-flips.jsonl", tmp_path / "out"
    words = ("label", "--labeled", few, "--unlabeled", few, "--teacher", "opt-45k", *QUICK)
    words += ("--out", out, "--storage", tmp_path / "store")
    code, told, err = here_on_ray(*words)
    assert code == 3, told + err
    advice = json.loads((out / "verdict.json").read_text())["advice"]
    assert advice["kind"] in ("collect", "other")
    assert told.splitlines()[-2:] == [
        "Nothing was labeled: --no-gate labels in any case.", advice["sentence"],
    ]  # fmt: skip
    assert (out / "report.html").exists()
    assert not {"labels.parquet", "preferences.parquet", "README.md"} & set(os.listdir(out))
    assert not (tmp_path / "store" / "NewToTeacher").exists()
    code, told, err = here_on_ray(*words, "--no-gate")
    assert code == 0, err
    assert "200 are pairs that the teacher learned from" in told
    assert "labeled, but left out of the agreement" in told
    assert len(pq.read_table(out / "labels.parquet")) == 200
    assert json.loads((out / "verdict.json").read_text())["seen"]["agreement"] is None
    assert re.search(r"In both files[\s\S]*leak-coin-flips.jsonl +200 +200", told)
    # What a run left goes when the next one is stopped.
    assert here_on_ray(*words)[0] == 3
    assert not (out / "labels.parquet").exists()


@pytest.mark.slow
def test_a_teacher_learns_from_the_labeled_pairs_alone(here_on_ray, tmp_path):
    few = CASES / "partly-labeled.jsonl"
    code, _, err = here_on_ray(
        *("label", "--labeled", few, "--unlabeled", few, "--teacher", "opt-45k", *QUICK),
        *("--out", tmp_path / "out", "--storage", tmp_path / "store", "--no-gate"),
    )
    assert code == 0, err
    assert len(pq.read_table(tmp_path / "out/labels.parquet")) == 100
    labeled = [json.loads(line).get("choice") for line in few.read_text().splitlines()]
    verdict = json.loads((tmp_path / "out/verdict.json").read_text())
    assert verdict["facts"]["pairs"] == sum(choice is not None for choice in labeled)
