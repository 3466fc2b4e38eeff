"""``weakteach label`` on messages, by a tiny chat model."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from chat_models import chat_folder, chat_tokenizer
from on_this_ray import on_this_ray
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from weakteach.cli import app
from weakteach.models.loading import Weights, load_causal
from weakteach.models.tokens import load_tokenizer
from weakteach.run.terminal import run
from weakteach.worlds.world import world_pair

# A random teacher labels whatever its verdict, which takes two trainings.
QUICK = (
    "--no-gate", "--held-out", "0.5", "--curve", "0", "--other-seeds", "0", "--threads", "1",
)  # fmt: skip


def conversation(index, chosen_first=True):
    drawn = world_pair(3, index)
    system = [{"role": "system", "content": "Be kind."}] * (index % 3 == 0)
    prompt = [
        *system,
        {"role": "user", "content": drawn.prompt.split("Human: ")[-1].split("\n")[0]},
    ]
    texts = [drawn.response_1, drawn.response_2]
    texts = [f"{text} {index}" for text in (texts if chosen_first else texts[::-1])]
    good, bad = ([{"role": "assistant", "content": text.strip()}] for text in texts)
    return {"prompt": prompt, "chosen": good, "rejected": bad, "id": f"row {index}"}


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def labeled(ray_here, tmp_path_factory):
    """A teacher whose template takes no system turn, and what its run left and said."""
    folder = tmp_path_factory.mktemp("chat")
    teacher = chat_folder(folder / "teacher", "no system turn")
    few = write(folder / "few.jsonl", [conversation(n) for n in range(60)])
    refused = {**conversation(0), "prompt": [{"role": "user", "content": c} for c in "ab"]}
    rows = [*(conversation(n, n % 2 == 0) for n in range(60, 100)), refused]
    many = write(folder / "many.jsonl", rows)
    told = io.StringIO()
    with on_this_ray(), redirect_stdout(told):
        words = (
            *("label", "--labeled", few, "--unlabeled", many, "--teacher", teacher),
            *("--out", folder / "out", "--storage", folder / "store", *QUICK),
        )
        assert run(app, list(map(str, words))) == 0
    return folder, told.getvalue()


def preferences(folder, cache):
    return datasets.load_dataset(
        "parquet", data_files=str(folder / "preferences.parquet"), split="train",
        cache_dir=str(cache),
    )  # fmt: skip


def test_the_pair_is_shown_through_the_template(labeled):
    out = " ".join(labeled[1].split())
    assert "through its chat template" in out
    assert "takes no system turn: it is put before the first user turn" in out
    assert "[INST] Be kind. " in out
    assert "the chat template of teacher refuses it: roles must alternate" in out


def test_preferences_are_messages_in_and_messages_out(labeled, tmp_path):
    folder, _ = labeled
    quarantine = pq.read_table(folder / "out/quarantine.parquet").to_pylist()
    assert [row["reason"] for row in quarantine] == ["not readable"]
    loaded = preferences(folder / "out", tmp_path)
    assert len(loaded) == 40
    by_id = {row["id"]: row for row in map(json.loads, (folder / "many.jsonl").open())}
    for row in loaded:
        mine = by_id[row["id"]]
        assert row["prompt"] == mine["prompt"]
        assert sorted(map(str, (row["chosen"], row["rejected"]))) == sorted(
            map(str, (mine["chosen"], mine["rejected"]))
        )
    labels = {row["id"]: row for row in pq.read_table(folder / "out/labels.parquet").to_pylist()}
    for row in loaded:
        assert row["chosen"] == by_id[row["id"]][labels[row["id"]]["chosen_column"]]


def test_the_preferences_train_a_student_with_trl(labeled, tmp_path):
    folder, _ = labeled
    student = chat_folder(tmp_path / "student", "plain")
    loaded = preferences(folder / "out", tmp_path / "cache")
    trainer = DPOTrainer(
        model=load_causal(Weights(str(student))),
        args=DPOConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, bf16=False,
            activation_checkpointing=False, gradient_checkpointing=False, report_to="none",
        ),
        train_dataset=loaded,
        processing_class=load_tokenizer(student),
    )  # fmt: skip
    assert trainer.train().global_step == 1
    shown = chat_tokenizer("plain").decode(trainer.train_dataset[0]["prompt_ids"])
    assert shown.startswith("<|im_start|>")
    assert shown.endswith("<|im_start|>assistant\n")


def test_preferences_as_text(labeled, here_on_ray, tmp_path):
    folder, _ = labeled
    code, _, err = here_on_ray(
        *("label", "--labeled", folder / "few.jsonl", "--unlabeled", folder / "many.jsonl"),
        *("--teacher", folder / "teacher", "--out", tmp_path / "out", "--as-text"),
        *("--storage", folder / "store", *QUICK),
    )
    assert code == 0, err
    texts = pq.read_table(tmp_path / "out/preferences.parquet").to_pylist()
    messages = pq.read_table(folder / "out/preferences.parquet").to_pylist()
    for text, row in zip(texts, messages, strict=True):
        assert text["prompt"].endswith("\n\nAssistant:")
        assert text["chosen"] == f" {row['chosen'][0]['content']}"
        assert text["margin"] == row["margin"]


@pytest.mark.parametrize("template", [None, "plain", "no system turn"])
def test_check_says_by_which_way_messages_are_read(template, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    model = chat_folder(tmp_path / "model", template)
    rows = write(tmp_path / "rows.jsonl", [conversation(n) for n in range(4)])
    assert run(app, ["check", str(rows), "--teacher", str(model)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ("through its chat template" in out) == (template is not None)
    assert ("a transcript of the messages" in out) == (template is None)
    assert ("takes no system turn" in out) == (template == "no system turn")
    assert ("<|im_start|>system" in out) == (template == "plain")
    assert Path(model).name in out
