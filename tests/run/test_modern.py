"""The preset ``modern`` by its own hub ids, of whose repositories a hub on loopback has tiny
stand-ins: today's families with chat templates, a reward model that reads by its template, pairs
of messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from families import CONFIGS, randomized
from hub_server import Repository, serving
from transformers import AutoModelForSequenceClassification

from weakteach.models.tiny.pretraining import build_tokenizer
from weakteach.preferences.sources import WorldSource
from weakteach.study.presets import MODERN

ROOT = Path(__file__).parents[2]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
FAMILIES = {
    "HuggingFaceTB/SmolLM2": "llama",
    "HuggingFaceTB/SmolLM3": "smollm3",
    "meta-llama/": "llama",
    "Qwen/Qwen3": "qwen3",
    "google/gemma-3": "gemma3",
    "Skywork/Skywork-Reward-V2-Llama": "llama",
    "Skywork/Skywork-Reward-V2-Qwen3": "qwen3",
}


def stand_in(name, folder):
    """A random model of the family that a hub id is of, with a template."""
    family = next(kind for start, kind in FAMILIES.items() if name.startswith(start))
    config = CONFIGS[family]
    config = type(config)(**{**config.to_dict(), "max_position_embeddings": 2048})
    if name.startswith("Skywork/"):
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = randomized(config)
    model.save_pretrained(folder)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return Repository(folder)


def said(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    golds = (gold.partition(":")[2] for gold in MODERN.data.golds)
    names = {
        *MODERN.ranges.weak, *MODERN.students, *MODERN.families, *MODERN.others, *golds,
        MODERN.student,
    }  # fmt: skip
    models = {name: stand_in(name, root / name.replace("/", "--")) for name in sorted(names)}
    data = root / "data"
    data.mkdir()
    with (data / "train.jsonl").open("w") as file:
        for pair in WorldSource(160).read():
            texts = (pair.first, pair.second)
            chosen, rejected = texts if pair.preferred == 1 else texts[::-1]
            row = {"chosen": said(pair.prompt, chosen), "rejected": said(pair.prompt, rejected)}
            file.write(json.dumps(row) + "\n")
    return {"models": models, "datasets": {MODERN.data.data: Repository(data)}}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_shape_of_modern_goes_end_to_end_on_stand_ins(repositories, tmp_path):
    words = [
        "--preset", "modern", "--storage", str(tmp_path / "store"), "--seeds", "0",
        "--fractions", "1/2", "--test-pairs", "16", "--gpus", "0",
        "--train-workers", "0", "--label-actors", "0", "--threads", "1", "--cpus", "1",
    ]  # fmt: skip
    with serving(**repositories) as (url, fetched):
        environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "COLUMNS": "200",
            "HF_HUB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip

        def sweep(*more):
            done = subprocess.run(
                [sys.executable, "sweeps/size_grid.py", *words, *more],
                cwd=ROOT, capture_output=True, text=True, env=environment,
            )  # fmt: skip
            return done.returncode, done.stdout, done.stderr

        code, out, err = sweep("--check")
        assert code == 0, err
        assert "All is there." in out
        assert not any(file.endswith(".safetensors") for file in fetched)
        code, out, err = sweep()
    assert code == 0, out + err
    results = pq.read_table(tmp_path / "store" / "studies" / "size_grid" / "results.parquet")
    frame = results.to_pandas()
    assert set(frame["status"]) == {"done"}
    assert set(frame["weak"]) == set(MODERN.first.weak)
    assert {"weak", "human", "both", "base"} <= set(frame["role"])
    rewards = frame[frame["measure"] == "gold_reward"]["value"]
    assert rewards.notna().all()
    assert rewards.nunique() > 1
    used = {file.rpartition("/")[0] for file in fetched if file.endswith(".safetensors")}
    gold = MODERN.data.golds[0].partition(":")[2]
    assert used == {*MODERN.first.weak, MODERN.student, gold}
    (page,) = tmp_path.glob("store/studies/size_grid/report.html")
    assert "Traceback" not in out + err + page.read_text()
