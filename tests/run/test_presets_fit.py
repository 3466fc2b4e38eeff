"""Every sweep of the presets for GPUs, by the shapes of their published models, on their cards."""

import json
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest

from weakteach.artifacts.step import walk
from weakteach.models import size
from weakteach.models.memory import Fit
from weakteach.models.resources import GIB
from weakteach.run.capacity import check_host_memory, hosts_of
from weakteach.run.command import Sweep
from weakteach.run.fit import footprints
from weakteach.run.nodes import nodes_of_file
from weakteach.run.plan import model_of
from weakteach.run.readiness import check_footprints
from weakteach.study.experiment import arms_of
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import MODERN, PAPER

ROOT = Path(__file__).parents[2]
SWEEPS = sorted(file.stem for file in (ROOT / "sweeps").glob("*.py"))
# Of modern nothing is said of the card; its recipes are meant for 80 GB.
CARDS = {"paper": "A100", "modern": "A100-80G"}


def opt(hidden, layers, heads):
    return {
        "model_type": "opt", "vocab_size": 50_272, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * hidden,
        "max_position_embeddings": 2048, "activation_function": "relu",
    }  # fmt: skip


def gated(kind, vocabulary, hidden, layers, heads, keys, inner, width=None, tied=False):
    return {
        "model_type": kind, "vocab_size": vocabulary, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": keys,
        "intermediate_size": inner, "tie_word_embeddings": tied,
        **({"head_dim": width} if width else {}),
    }  # fmt: skip


LLAMA_3 = gated("llama", 128_256, 4096, 32, 32, 8, 14_336)
MISTRAL = gated("mistral", 32_000, 4096, 32, 32, 8, 14_336)
QWEN_SMALL = gated("qwen3", 151_936, 1024, 28, 16, 8, 3072, 128, tied=True)
# What each repository's config.json says of its shape.
PUBLISHED = {
    "facebook/opt-125m": opt(768, 12, 12),
    "facebook/opt-1.3b": opt(2048, 24, 32),
    "facebook/opt-2.7b": opt(2560, 32, 32),
    "facebook/opt-6.7b": opt(4096, 32, 32),
    "facebook/opt-13b": opt(5120, 40, 40),
    "meta-llama/Meta-Llama-3-8B": LLAMA_3,
    "meta-llama/Llama-2-7b-hf": gated("llama", 32_000, 4096, 32, 32, 32, 11_008),
    "mistralai/Mistral-7B-v0.1": MISTRAL,
    "google/gemma-7b": gated("gemma", 256_000, 3072, 28, 16, 16, 24_576, 256, tied=True),
    "EleutherAI/gpt-neo-125m": {
        "model_type": "gpt_neo", "vocab_size": 50_257, "hidden_size": 768, "num_layers": 12,
        "num_heads": 12, "intermediate_size": None, "max_position_embeddings": 2048,
    },
    "EleutherAI/pythia-160m": {
        "model_type": "gpt_neox", "vocab_size": 50_304, "hidden_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "tie_word_embeddings": False,
    },
    "Ray2333/reward-model-Mistral-7B-instruct-Unified-Feedback": MISTRAL,
    "weqweasdas/RM-Mistral-7B": MISTRAL,
    "OpenAssistant/reward-model-deberta-v3-large-v2": {
        "model_type": "deberta-v2", "vocab_size": 128_100, "hidden_size": 1024,
        "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": gated(
        "llama", 49_152, 576, 30, 9, 3, 1536, tied=True
    ),
    "HuggingFaceTB/SmolLM2-360M-Instruct": gated(
        "llama", 49_152, 960, 32, 15, 5, 2560, tied=True
    ),
    "HuggingFaceTB/SmolLM3-3B": gated("smollm3", 128_256, 2048, 36, 16, 4, 11_008, tied=True),
    "meta-llama/Llama-3.2-1B-Instruct": gated(
        "llama", 128_256, 2048, 16, 32, 8, 8192, 64, tied=True
    ),
    "meta-llama/Llama-3.2-3B-Instruct": gated(
        "llama", 128_256, 3072, 28, 24, 8, 8192, 128, tied=True
    ),
    "google/gemma-3-270m-it": gated(
        "gemma3_text", 262_144, 640, 18, 4, 1, 2048, 256, tied=True
    ),
    "Qwen/Qwen3-0.6B": QWEN_SMALL,
    "Qwen/Qwen3-1.7B": gated("qwen3", 151_936, 2048, 28, 16, 8, 6144, 128, tied=True),
    "Qwen/Qwen3-4B": gated("qwen3", 151_936, 2560, 36, 32, 8, 9728, 128, tied=True),
    "Qwen/Qwen3-8B": gated("qwen3", 151_936, 4096, 36, 32, 8, 12_288, 128),
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": LLAMA_3,
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": QWEN_SMALL,
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders with the configs of the hub's models, as if they had been fetched; those used."""
    root, used = tmp_path_factory.mktemp("hub"), set()

    def cached(model):
        used.add(model.label)
        if model.label not in PUBLISHED:
            return None
        folder = root / model.label.replace("/", "--")
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(PUBLISHED[model.label]))
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(size, "_cached", cached)
        yield used


def steps_of(sweep, preset):
    """Of one seed and fraction: neither changes what a step takes."""
    module = import_module(f"sweeps.{sweep}")
    (question,) = (value for value in vars(module).values() if isinstance(value, Sweep))
    ranges = replace(preset.ranges, seeds=(0,), fractions=(Fraction(1, 2),))
    grid = make_grid(preset, ranges, Choices(), resolve=False)
    arms = arms_of(question.experiments_of(grid))
    return walk(target for arm in arms for target in arm.targets)


@pytest.mark.parametrize("preset", [PAPER, MODERN], ids=lambda preset: preset.name)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_step_of_every_sweep_fits_the_card_that_it_is_meant_for(sweep, preset, published):
    resources = replace(preset.resources, gpu_type=CARDS[preset.name])
    steps = steps_of(sweep, preset)
    found = footprints(steps, resources, preset.max_tokens)
    assert check_footprints(found, resources) == []
    used = {model.label for step in steps if (model := model_of(step))}
    # A sweep that the preset has no data for has no steps.
    assert bool(found) == bool(used)
    assert used <= {*PUBLISHED, preset.embedding}


def test_the_largest_student_takes_all_workers_that_the_preset_has(published):
    steps = steps_of("student_size", PAPER)
    found = {(one.kind, one.model): one for one in footprints(steps, PAPER.resources, 512)}
    largest = found["Sft", "facebook/opt-13b"]
    assert (largest.fit, round(largest.fitted / GIB)) == (Fit(True, shards=8), 31)
    four = replace(PAPER.resources, train_workers_max=4)
    (problem,) = check_footprints(footprints(steps, four, 512), four)
    assert problem.where == "Sft of facebook/opt-13b"
    assert "its share of a A100 is 39 GiB" in problem.what


def test_pods_of_the_cluster_that_comes_along_load_what_paper_trains(published):
    nodes = nodes_of_file(ROOT / "cluster" / "kuberay" / "raycluster.yaml")
    found = footprints(steps_of("student_size", PAPER), PAPER.resources, 512)
    hosts = hosts_of(nodes, PAPER.resources)
    assert [(host.name, host.workers) for host in hosts] == [("a100", 1)]
    loads = [(one.name, one.loaded, one.workers) for one in found]
    assert check_host_memory("raycluster.yaml", hosts, loads) == []
    assert max(loaded for _, loaded, _ in loads) > 47 * GIB
