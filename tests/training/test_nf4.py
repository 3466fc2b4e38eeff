"""Adapters over a base in 4 bits, as far as it can be told without bitsandbytes and a GPU."""

from importlib import util
from types import SimpleNamespace

import pytest
import torch
from packed_trainings import HERE, TOKENIZER, arguments, some_pairs, start_model
from test_fitting import MODEL, PAIRS, job
from transformers import AutoModelForCausalLM
from trl.trainer.sft_config import SFTConfig

from sweeps.size_grid import size_grid
from weakteach.artifacts.errors import StepError
from weakteach.models import nf4
from weakteach.models.loading import Weights
from weakteach.models.memory import NF4, Fit, choose_fit, shape_of, training_memory, ways_to_fit
from weakteach.models.resources import Resources
from weakteach.models.spec import ModelError
from weakteach.models.tiny.family import base_folder
from weakteach.preferences.pair import DataError
from weakteach.run.preflight import check_nf4
from weakteach.study.grids import Choices, make_grid
from weakteach.study.presets import EMBEDDED, MODERN, PAPER
from weakteach.training import fitting
from weakteach.training.recipes import Lora, RewardRecipe
from weakteach.training.sft import PackedSftTrainer
from weakteach.training.worker import lora_config, train_in_float32

OVER = Lora(rank=8, base="nf4")
TINY = str(base_folder("opt-45k"))


def test_what_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'weakteach\[nf4\]'"):
        nf4.load_over_nf4(Weights(TINY), "bfloat16")
    monkeypatch.setattr(nf4, "util", SimpleNamespace(find_spec=lambda name: name))
    monkeypatch.setattr(nf4, "device", lambda: torch.device("cpu"))
    with pytest.raises(ModelError, match="CUDA"):
        nf4.load_over_nf4(Weights(TINY), "bfloat16")
    with pytest.raises(ValueError, match="whole base"):
        RewardRecipe(lora=OVER)


@pytest.fixture
def loaded(monkeypatch):
    """What transformers would be asked to load, on a machine that has all."""
    asked = []

    def load(folder, **options):
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=options["dtype"])
        asked.append((folder, options, plain.state_dict()))
        return plain

    monkeypatch.setattr(nf4, "util", SimpleNamespace(find_spec=lambda name: name))
    monkeypatch.setattr(nf4, "device", lambda: torch.device("cuda", 3))
    monkeypatch.setattr(nf4, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=load))
    return asked


def test_transformers_is_asked_for_nf4_on_the_device_of_the_process(loaded, tmp_path):
    nf4.load_over_nf4(Weights(TINY), "bfloat16")
    ((folder, options, _),) = loaded
    config = options["quantization_config"]
    assert (folder, options["device_map"]) == (TINY, {"": torch.device("cuda", 3)})
    assert config.quantization_method() == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == options["dtype"] == torch.bfloat16
    assert options["use_safetensors"]
    assert not options["trust_remote_code"]


def test_adapters_of_trainings_before_are_merged_into_the_whole_base_first(loaded, tmp_path):
    from peft import get_peft_model

    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(TINY), lora_config(Lora(rank=4)))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    adapted.save_pretrained(tmp_path)
    nf4.load_over_nf4(Weights(TINY, (str(tmp_path),)), "float32")
    ((_, _, found),) = loaded
    merged = adapted.merge_and_unload().state_dict()
    start = AutoModelForCausalLM.from_pretrained(TINY).state_dict()
    assert found.keys() == merged.keys()
    assert all(torch.allclose(found[name], merged[name]) for name in found)
    assert not all(torch.equal(found[name], start[name]) for name in found)


def test_adapters_are_trained_in_float32_all_the_same(tmp_path):
    model = start_model("llama", "sft")
    model.is_loaded_in_4bit = True  # for which TRL casts the adapters
    trainer = PackedSftTrainer(
        some_pairs(), HERE, model=model, args=SFTConfig(**arguments(tmp_path, 16)),
        processing_class=TOKENIZER, peft_config=lora_config(Lora(rank=4)),
    )  # fmt: skip
    assert dtypes(trainer) == {torch.bfloat16}
    train_in_float32(trainer)
    assert dtypes(trainer) == {torch.float32}


def dtypes(trainer):
    return {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad}


def test_the_base_takes_half_a_byte_a_weight_and_is_never_sharded(monkeypatch):
    llama = shape_of(
        {"model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "num_hidden_layers": 32,
         "intermediate_size": 11_008, "num_attention_heads": 32}
    )  # fmt: skip
    whole, small = (
        training_memory(llama, 512, "bfloat16", 8, over_nf4=over).weights for over in (False, True)
    )
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11_008)
    assert pytest.approx(0.5159, abs=1e-4) == NF4
    assert whole - small == pytest.approx((2 - NF4) * layers - 2 * 4096 * 11_008)
    fit = choose_fit(llama, 512, "bfloat16", 8, 1, 12 << 30, ways_to_fit("auto", 1), True)
    assert fit == Fit()
    assert not choose_fit(llama, 512, "bfloat16", 8, 1, 12 << 30, ways_to_fit("auto", 1))
    monkeypatch.setattr(fitting, "world_size", lambda: 4)
    monkeypatch.setattr(fitting, "_room", lambda gpus: 1)
    with pytest.raises(StepError, match="a base in 4 bits is not sharded"):
        fitting.find_fit(job(OVER, fit="sharded", train_workers=4, gpus=1), MODEL, PAIRS)


def test_the_option_changes_adapters_of_policies_and_nothing_else():
    grid = make_grid(PAPER, PAPER.first, Choices(lora_base="nf4", sft_lora=4), resolve=False)
    recipes, usual = grid.data.student("some"), PAPER.data.student_recipes("some")
    assert (recipes.sft.lora.base, recipes.dpo.lora.base) == ("nf4", "nf4")
    assert recipes.reward == usual.reward
    plain = make_grid(PAPER, PAPER.first, Choices(), resolve=False).data.student("some")
    assert plain == usual
    over = make_grid(MODERN, MODERN.first, Choices(lora_base="nf4"), resolve=False)
    assert over.data.teacher("some").reward.lora.base == "whole"
    with pytest.raises(DataError, match="no model of the preset embedded is trained by adapters"):
        make_grid(EMBEDDED, EMBEDDED.first, Choices(lora_base="nf4"), resolve=False)


def test_the_preflight_names_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert [problem.remedy for problem in check_nf4(Resources())] == [
        "--gpus 1", "pip install 'weakteach[nf4]', here and on every host",
    ]  # fmt: skip
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "200")
    options = ["--lora-base", "nf4", "--sft-lora", "4", "--storage", str(tmp_path)]
    assert size_grid.run(options) == 2
    assert "a base in 4 bits needs a CUDA GPU" in capsys.readouterr().err
