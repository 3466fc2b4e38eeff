"""A dozen broken set-ups, each named with its remedy before anything starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Repository, hub
from ray_up import CLUSTER

from sweeps.size_grid import size_grid
from weakteach.cli import app
from weakteach.models.spec import find_model
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.sources import WorldSource, file_source, hub_source
from weakteach.run.preflight import check_golds, check_models, check_source
from weakteach.run.terminal import run

ROOT = Path(__file__).parents[2]


def model(folder, tiny, weights=True, **config):
    """A repository's files; the smallest model's, but for what the config says."""
    shutil.copytree(tiny, folder)
    own = {**json.loads((folder / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps(own))
    if not weights:
        (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, tiny):
    root = tmp_path_factory.mktemp("hub")
    good = model(root / "good", tiny)
    no_eos = model(root / "no_eos", tiny)
    tokenizer = load_tokenizer(tiny)
    tokenizer.save_pretrained(no_eos)
    told = json.loads((no_eos / "tokenizer_config.json").read_text())
    told = {key: value for key, value in told.items() if not key.startswith("eos")}
    (no_eos / "tokenizer_config.json").write_text(json.dumps(told))
    (no_eos / "special_tokens_map.json").unlink(missing_ok=True)
    no_tokenizer = model(root / "no_tokenizer", tiny)
    for file in no_tokenizer.glob("tokenizer*"):
        file.write_text("{")
    (no_config := model(root / "no_config", tiny) / "config.json").unlink()
    (damaged := model(root / "damaged", tiny) / "config.json").write_text('{"model_type": ')
    reward = {"architectures": ["OPTForSequenceClassification"], "id2label": {"0": "reward"}}
    own = {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}
    gptq = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    hybrid = {"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}
    large = {"hidden_size": 4096, "num_hidden_layers": 32, "ffn_dim": 16_384}
    return {
        "some/good": Repository(good),
        "some/big": Repository(model(root / "big", tiny, **large)),
        "some/gated": Repository(good, gated=True),
        "some/no-weights": Repository(model(root / "no_weights", tiny, weights=False)),
        "some/no-eos": Repository(no_eos),
        "some/no-tokenizer": Repository(no_tokenizer),
        "some/short": Repository(model(root / "short", tiny, max_position_embeddings=100)),
        "some/reward": Repository(model(root / "reward", tiny, **reward)),
        "some/no-config": Repository(no_config.parent),
        "some/damaged": Repository(damaged.parent),
        "some/encoder": Repository(model(root / "encoder", tiny, model_type="t5")),
        "some/own-code": Repository(model(root / "own_code", tiny, **own)),
        "some/nameless": Repository(model(root / "nameless", tiny, model_type=None)),
        "some/gptq": Repository(model(root / "gptq", tiny, **gptq)),
        "some/hybrid": Repository(model(root / "hybrid", tiny, **hybrid)),
        "some/odd-reward": Repository(model(root / "odd", tiny, **reward, model_type="clip")),
    }


MODELS = {
    "some/absent": "There is no model some/absent on the hub",
    "some/gated": "some/gated is gated",
    "some/no-weights": "no weights at the top of its files",
    "some/no-eos": "no EOS",
    "some/no-tokenizer": "its tokenizer cannot be read",
    "some/short": "reads 100 tokens, and pairs may have 512",
    "some/no-config": "has no config.json",
    "some/damaged": "config.json cannot be read (JSONDecodeError)",
    "some/encoder": "its type is 't5', and AutoModelForCausalLM of the transformers",
    "some/own-code": "it comes with code of its own, which is not run",
    "some/nameless": "its config.json names no model_type",
    "some/gptq": "its weights are quantized (gptq), and are not trained",
    "gpt-9": "There is no model",
}


def test_models_with_problems_are_all_named_and_no_weights_fetched(repositories, tmp_path):
    named = ["some/good", "llama-230k", *MODELS]
    with hub(tmp_path, models=repositories) as fetched:
        problems = check_models([find_model(name, resolve=False) for name in named], 512, [])
    assert [problem.where for problem in problems] == list(MODELS)
    for problem, sentence in zip(problems, MODELS.values(), strict=True):
        assert sentence in problem.what
        assert problem.remedy
    assert not any(name.endswith("safetensors") for name in fetched)


GRANITE = {
    "model_type": "granitemoehybrid", "hidden_size": 32, "mamba_expand": 2, "mamba_n_heads": 8,
    "mamba_d_head": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "conv"),
        ({"model_type": "lfm2", "full_attn_idxs": [1]}, "conv"),
        ({"model_type": "qwen3_next"}, "linear_attention"),
        ({**GRANITE, "layer_types": ["mamba", "attention"]}, "linear_attention"),
        ({"model_type": "mamba"}, "linear_attention"),
        ({"model_type": "rwkv"}, "rwkv"),
        ({"model_type": "llama"}, None),
        ({"model_type": "gemma3_text"}, None),
        ({**GRANITE, "layer_types": ["attention", "attention"]}, None),
    ],
)
def test_responses_are_drawn_from_models_that_attend_alone(tmp_path, tiny, config, layers):
    """A teacher may have other layers: it labels only."""
    folder = model(tmp_path / "some", tiny, num_hidden_layers=2, **config)
    found = find_model(str(folder))
    assert not check_models([found], 0, [])
    problems = check_models([found], 0, [found])
    assert bool(problems) == bool(layers)
    for problem in problems:
        assert f"it has layers ({layers}" in problem.what
        assert problem.remedy == "use another student"


def test_golds_need_a_head_and_what_their_form_reads(repositories, tmp_path):
    reward, good = (find_model(name, resolve=False) for name in ("some/reward", "some/good"))
    with hub(tmp_path, models=repositories):
        problems = check_golds([(reward, "text"), (reward, "chat"), (good, "text")])
    assert [p.where for p in problems] == ["some/reward", "some/good"]
    assert "no chat template" in problems[0].what
    assert "it is no reward model: OPTForCausalLM" in problems[1].what


def test_data_is_there_with_its_split_and_columns(tmp_path):
    assert not check_source("world:64", lambda: WorldSource(64))
    (gone,) = check_source("gone.jsonl", lambda: file_source(tmp_path / "gone.jsonl"))
    assert "no such file" in f"{gone.what} {gone.remedy}"
    (tmp_path / "bad.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (bad,) = check_source("bad.jsonl", lambda: file_source(tmp_path / "bad.jsonl"))
    assert "columns" in f"{bad.what} {bad.remedy}"
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    assert not check_source("set", lambda: hub_source(str(folder)))
    (split,) = check_source("set", lambda: hub_source(str(folder), split="train_prefs"))
    assert "train_prefs" in f"{split.what} {split.remedy}"


def bad_set(folder, rows, file="train.jsonl"):
    folder.mkdir()
    (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Repository(folder)


CLUSTERS = ("cluster.yaml", "disks.yaml")


def write_clusters(folder):
    """The second says of its nodes that their disks have 64 GB."""
    disk = "node_config: {BlockDeviceMappings: [{Ebs: {VolumeSize: 64}}]}}"
    for name, text in zip(CLUSTERS, (CLUSTER, CLUSTER.replace("}}", "}, " + disk)), strict=True):
        (folder / name).write_text(text)


@pytest.fixture
def command(repositories, tmp_path, monkeypatch, capsys):
    """The size grid's command in this process, beside a hub; Ray must not be started."""

    def started(*_, **__):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("weakteach.run.cluster.start_ray", started)
    monkeypatch.setenv("COLUMNS", "300")
    write_clusters(tmp_path)
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    sets = {
        "some/pairs": bad_set(tmp_path / "pairs", [good] * 40),
        "some/other": bad_set(tmp_path / "other", [{"question": "a", "answer": "b"}]),
        "some/empty": bad_set(tmp_path / "empty", [{**good, "rejected": None}] * 3),
    }

    def sweep(*options):
        store = ["--storage", str(tmp_path / "store"), "--seeds", "0", "--fractions", "1/2"]
        given = [str(tmp_path / o) if o in CLUSTERS else o for o in options]
        with hub(tmp_path / "cache", models=repositories, datasets=sets) as fetched:
            code = size_grid.run([*store, *given])
        out, err = capsys.readouterr()
        assert not any(name.endswith("safetensors") for name in fetched)
        return code, out, " ".join(err.split())

    return sweep


L4 = ("--gpus", "1", "--train-workers", "1", "--gpu-type", "L4")
BROKEN = {
    "absent model": (["--student", "some/absent"], "There is no model some/absent on the hub"),
    "gated model": (["--weak", "some/gated"], "some/gated is gated"),
    "no weights": (["--student", "some/no-weights"], "no weights at the top of its files"),
    "no EOS": (["--weak", "some/no-eos"], "its tokenizer has no EOS"),
    "broken tokenizer": (["--weak", "some/no-tokenizer"], "its tokenizer cannot be read"),
    "short context": (["--student", "some/short"], "reads 100 tokens, and pairs may have 512"),
    "no config": (["--student", "some/no-config"], "has no config.json: give a whole model"),
    "damaged config": (["--weak", "some/damaged"], "config.json cannot be read (JSONDecodeError)"),
    "another kind of model": (["--student", "some/encoder"], "its type is 't5'"),
    "code of its own": (["--student", "some/own-code"], "code of its own, which is not run"),
    "no type": (["--weak", "some/nameless"], "its config.json names no model_type"),
    "quantized weights": (["--student", "some/gptq"], "its weights are quantized (gptq)"),
    "student that cannot write": (["--student", "some/hybrid"], "it has layers (conv) that"),
    "another kind of gold": (["--gold", "some/odd-reward"], "its type is 'clip'"),
    "absent gold": (["--gold", "some/nowhere"], "There is no model some/nowhere"),
    "gold without a head": (["--gold", "some/good"], "it is no reward model"),
    "gold without a template": (["--gold", "chat:some/reward"], "it has no chat template"),
    "absent data": (["--data", "some/nothing"], "there is no data set some/nothing"),
    "absent split": (["--data", "some/pairs:test"], "there is no split 'test'"),
    "other columns": (["--data", "some/other"], "columns"),
    "no pair": (["--data", "some/empty"], "none of its first 3 rows is a pair"),
    "no such GPU": (
        ["--gpus", "1", "--gpu-type", "H100", "--cluster-file", "cluster.yaml"],
        "no node has a H100 GPU: --gpu-type A100 or L4",
    ),
    "too few GPUs": (
        [*L4, "--label-actors", "9", "--cluster-file", "cluster.yaml"],
        "9 workers are asked for, and all nodes together hold 8: --label-actors 8",
    ),
    "too small disks": (
        [*L4, "--student", "some/big", "--cluster-file", "disks.yaml"],
        "the disk of l4 has room for 14 GiB",
    ),
    "no cluster file": (["--cluster-file", "pyproject.toml"], "no cluster file of ray up"),
    "too little memory": (["--student", "some/big", *L4], "its share of a L4 is 22 GiB"),
    "too little on the smallest card": (
        ["--student", "some/big", *L4[:4], "--cluster-file", "cluster.yaml"],
        "its share of the smallest GPU there is 22 GiB",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("check", [[], ["--check"]], ids=["run", "check"])
def test_a_broken_set_up_is_named_before_ray_starts(command, options, sentence, check):
    code, _, err = command(*options, *check)
    assert code == 2, err
    assert sentence in err
    assert "Traceback" not in err


def test_a_plan_of_a_damaged_folder_is_a_sentence(command, repositories):
    folder = str(repositories["some/damaged"].folder)
    code, _, err = command("--student", folder, "--plan")
    assert code == 2
    assert "config.json cannot be read (JSONDecodeError): get the model anew" in err
    assert "Traceback" not in err


def test_a_disk_that_is_too_small_is_named(command, monkeypatch):
    monkeypatch.setattr("weakteach.run.readiness.free_bytes", lambda folder: 1e6)
    code, _, err = command()
    assert code == 2
    assert "GiB will be written, and 0 GiB are free: another --storage" in err


def test_several_problems_stand_in_one_table(command):
    options = ["--weak", "some/gated,some/no-eos", "--student", "some/short", "--data"]
    code, _, err = command(*options, "some/other", *L4, "--cpus", "64",
                           "--cluster-file", "cluster.yaml")  # fmt: skip
    assert code == 2
    assert "5 problems before the start" in err
    for word in ("gated", "EOS", "100 tokens", "columns", "64 CPUs", "nothing was started"):
        assert word in err


def test_a_sound_set_up_passes_the_check_and_nothing_is_started(command, tmp_path):
    reward = ["--gold", "some/reward", "--data", "some/pairs", "--test-pairs", "8"]
    code, out, err = command("--student", "some/good", *reward, "--check")
    assert code == 0, err
    assert "Error" not in err
    assert "All is there." in out
    assert "Nothing was started." in out
    assert not list((tmp_path / "store").glob("*/*/record.json"))


def test_where_no_hub_id_is_used_no_hub_is_asked_and_no_library_loaded(tmp_path):
    code = """
import sys
from unittest.mock import patch
from sweeps.size_grid import size_grid
from weakteach.models import spec
def asked(*_): raise AssertionError("the hub was asked")
with patch.object(spec, "hub_listing", asked), patch.object(spec, "fetch", asked):
    assert size_grid.run(["--storage", sys.argv[1], "--check"]) == 0
assert not {"torch", "ray", "transformers", "huggingface_hub", "datasets"} & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture
def labeling(repositories, tmp_path, monkeypatch, capsys):
    """The label command in this process, beside a hub; Ray must not be started."""

    def started(*_, **__):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("weakteach.run.cluster.start_ray", started)
    monkeypatch.setenv("COLUMNS", "300")
    write_clusters(tmp_path)
    assert run(app, ["world", "64", "--out", str(tmp_path / "pairs.jsonl")]) == 0

    def label(*options):
        given = [str(tmp_path / o) if o in CLUSTERS else o for o in options]
        pairs = str(tmp_path / "pairs.jsonl")
        words = ["label", "--labeled", pairs, "--unlabeled", pairs, "--out", str(tmp_path / "out")]
        with hub(tmp_path / "cache", models=repositories):
            code = run(app, [*words, "--storage", str(tmp_path / "store"), *given])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return label


NOT_LABELED = {
    "gated": (["--teacher", "some/gated"], "some/gated is gated"),
    "no EOS": (["--teacher", "some/no-eos"], "its tokenizer has no EOS"),
    "no such GPU": (
        ["--gpus", "1", "--gpu-type", "H100", "--cluster-file", "cluster.yaml"],
        "no node has a H100 GPU",
    ),
    "too small disks": (
        ["--teacher", "some/big", "--preset", "paper", *L4, "--cluster-file", "disks.yaml"],
        "the disk of l4 has room for 14 GiB",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), NOT_LABELED.values(), ids=NOT_LABELED)
def test_label_names_a_broken_set_up_before_ray_starts(labeling, options, sentence):
    code, _, err = labeling(*options)
    assert code == 2
    assert sentence in err


def test_label_checks_alone(labeling, tmp_path):
    code, out, err = labeling("--teacher", "some/short", "--check")
    assert (code, "Error" in err) == (0, False), err
    assert "All is there. Nothing was started." in out
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("store/*/*/record.json"))
