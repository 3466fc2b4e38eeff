import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.models.loading import Weights, load_causal
from weakteach.models.tiny.family import base_folder
from weakteach.models.tokens import load_tokenizer
from weakteach.worlds.domains import POSTS
from weakteach.worlds.world import gold_reward


def weakteach(*arguments):
    run = subprocess.run(
        [sys.executable, "-m", "weakteach.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return run.returncode, run.stdout, run.stderr


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """Two files of the world's pairs, labeled by a tiny teacher."""
    folder = tmp_path_factory.mktemp("label")
    few, many = folder / "few.jsonl", folder / "many.jsonl"
    assert weakteach("world", 300, "--out", few)[0] == 0
    assert weakteach("world", 200, "--start", 300, "--out", many)[0] == 0
    with many.open("a") as file:
        file.write('{"prompt": "p", "chosen": "same", "rejected": "same"}\nnot json\n')
    outcome = weakteach(
        *("label", "--labeled", few, "--unlabeled", many, "--teacher", "opt-45k"),
        *("--out", folder / "out", "--storage", folder / "store"),
    )
    return folder, outcome


def test_world_writes_trl_rows_from_any_index(tmp_path):
    weakteach("world", 5, "--out", tmp_path / "a.jsonl")
    weakteach("world", 2, "--start", 3, "--out", tmp_path / "b.jsonl")
    weakteach("world", 2, "--start", 3, "--no-choices", "--out", tmp_path / "c.jsonl")
    a, b, c = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in "abc"
    )
    assert a[3:] == b
    assert list(a[0]) == ["prompt", "chosen", "rejected"]
    assert list(c[0]) == ["prompt", "response_1", "response_2"]
    assert {c[0]["response_1"], c[0]["response_2"]} == {b[0]["chosen"], b[0]["rejected"]}
    assert all(isinstance(gold_reward(r["prompt"], r["chosen"]).reward, float) for r in a)


def test_world_writes_posts_too(tmp_path):
    code, _, err = weakteach("world", 3, "--domain", "posts", "--out", tmp_path / "a.jsonl")
    assert code == 0, err
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["prompt"].startswith("\n\nPost: ")
        assert isinstance(POSTS.gold(row["prompt"], row["chosen"]).reward, float)


def test_label_writes_a_label_for_every_pair_and_says_how_good_the_teacher_is(labeled):
    folder, (code, out, err) = labeled
    assert code == 0, err
    assert "many.jsonl: 202 rows = 200 pairs + 2 in quarantine" in out
    assert "Teacher accuracy on held-out human choices" in out
    assert "Agreement with the human choices of the unlabeled file" in out
    assert "95 % interval" in out
    assert "INFO" not in out + err
    labels = pq.read_table(folder / "out" / "labels.parquet").to_pandas()
    assert len(labels) == 200
    assert labels["pair_id"].is_unique
    assert labels["confidence"].between(0, 1).all()
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
    assert loaded.column_names == ["prompt", "chosen", "rejected"]
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


def test_human_choices_of_the_unlabeled_file_change_no_label(labeled, tmp_path):
    folder, _ = labeled
    swapped = tmp_path / "many.jsonl"
    rows = [json.loads(line) for line in (folder / "many.jsonl").read_text().splitlines()[:200]]
    flipped = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in rows]
    swapped.write_text("".join(json.dumps(row) + "\n" for row in flipped))
    code, _, err = weakteach(
        *("label", "--labeled", folder / "few.jsonl", "--unlabeled", swapped),
        *("--teacher", "opt-45k", "--out", tmp_path / "out", "--storage", folder / "store"),
    )
    assert code == 0, err
    before, after = (
        pq.read_table(place / "out" / "preferences.parquet").to_pylist()
        for place in (folder, tmp_path)
    )
    assert before == after


def test_show_prints_the_record_and_the_lineage(labeled):
    folder, _ = labeled
    labels = min(path.name for path in (folder / "store" / "WeakLabels").iterdir())
    code, out, _ = weakteach("show", labels[:10], "--storage", folder / "store")
    assert code == 0
    assert f'"fingerprint": "{labels}"' in out
    for kind in ("Dpo/", "Sft/", "HumanLabels/", "Pairs/"):
        assert kind in out
    code, _, err = weakteach("show", "nothing", "--storage", folder / "store")
    assert code == 2
    assert "holds no artifact nothing" in err


def test_pretrain_writes_a_model_that_can_be_named(tmp_path):
    out = tmp_path / "model"
    assert weakteach("pretrain", "opt-45k", "--out", out, "--documents", 64)[0] == 0
    assert load_causal(Weights(str(out))).config.hidden_size == 32
    code, _, err = weakteach("pretrain", "opt-45k", "--out", out)
    assert code == 2
    assert "not empty" in err


BAD = {
    "no such file": (["--labeled", "none.jsonl"], "none.jsonl"),
    "empty file": (["--labeled", "empty.jsonl"], "empty"),
    "no choice": (["--labeled", "plain.jsonl"], "no row says which response a human chose"),
    "all rows bad": (["--labeled", "bad.jsonl"], "the first (bad.jsonl:1) for: bad JSON"),
    "unknown model": (["--teacher", "gpt-9"], "Unknown model 'gpt-9'"),
    "unknown columns": (["--unlabeled", "odd.csv"], "odd.csv"),
}


@pytest.mark.parametrize(("options", "sentence"), BAD.values(), ids=BAD)
def test_a_users_mistake_is_one_sentence(labeled, tmp_path, options, sentence):
    folder, _ = labeled
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "bad.jsonl").write_text("not json\n")
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    plain = {"prompt": "p", "response_1": "a", "response_2": "b"}
    (tmp_path / "plain.jsonl").write_text(json.dumps(plain) + "\n")
    given = {"--labeled": folder / "few.jsonl", "--unlabeled": folder / "many.jsonl"}
    given |= {"--teacher": "opt-45k", "--out": tmp_path / "out", "--storage": tmp_path / "store"}
    name, value = options
    given[name] = tmp_path / value if Path(value).suffix else value
    code, out, err = weakteach("label", *(item for pair in given.items() for item in pair))
    assert code == 2, out + err
    assert sentence in err
    assert "Traceback" not in out + err
