"""The memory of a plan's steps, and how their trainings are made to fit."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from rich.console import Console

from weakteach.evaluation.gold import RewardModel, WorldGold
from weakteach.models.memory import Fit, shape_of, training_memory
from weakteach.models.resources import Resources
from weakteach.models.size import shape_for
from weakteach.models.spec import Model, find_model
from weakteach.preferences.sources import WorldSource
from weakteach.run.fit import (
    footprints,
    memory_table,
    plan_memory,
)
from weakteach.run.nodes import NodeType, smallest_card
from weakteach.run.readiness import check_cards, check_footprints, check_nodes
from weakteach.run.simulation import tasks_of, widest
from weakteach.steps.data import HeldOut, Pairs, Split
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import GoldLabels, HumanLabels, WeakLabels
from weakteach.steps.training import Dpo, RewardHead, Sft, plan_fit, spread
from weakteach.training.recipes import DpoRecipe, Lora, RewardRecipe, Schedule, SftRecipe

GIB = 1 << 30
SHAPE = shape_of(
    {"model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "num_hidden_layers": 32,
     "intermediate_size": 11_008, "num_attention_heads": 32}
)  # fmt: skip
MODEL = find_model("opt-45k")
SPLIT = Split(HeldOut(Pairs(WorldSource(64), ()), 16), Fraction(1, 2), 0)
LABELS = HumanLabels(SPLIT.labeled)
RESOURCES = Resources(train_workers=4, gpus=1, train_tokens=2048, batch_tokens=8192)
HALF = {"dtype": "bfloat16"}
FULL = Sft(MODEL, LABELS, SftRecipe(Schedule(1e-5, batch=32)), 0, **HALF)
TEACHER = Dpo(FULL, LABELS, DpoRecipe(Schedule(1e-5, batch=16), lora=Lora(8)), 0, **HALF)
WHOLE = Dpo(FULL, LABELS, DpoRecipe(Schedule(1e-5, batch=16), lora=None), 0, **HALF)


def memory(step):
    return plan_memory(step, SHAPE, RESOURCES, 512)


def test_what_each_kind_of_step_takes():
    assert memory(FULL) == training_memory(SHAPE, 4 * 512, "bfloat16", 0, 4)
    assert memory(TEACHER) == training_memory(SHAPE, 4 * 512, "bfloat16", 8, 4)
    head = RewardHead(MODEL, LABELS, RewardRecipe(Schedule(1e-5, batch=4)), 0, **HALF)
    assert memory(head).activations == memory(WHOLE).activations / 2  # two rows a worker
    weights = 2 * SHAPE.parameters
    adapters, models = (WeakLabels(step, SPLIT.unlabeled, **HALF) for step in (TEACHER, WHOLE))
    assert (memory(adapters).weights, memory(models).weights) == (weights, 2 * weights)
    gold = GoldLabels(SPLIT.unlabeled, RewardModel(MODEL, **HALF))
    assert memory(gold).weights == weights
    responses = Generate(TEACHER, SPLIT.unlabeled, 0, **HALF)
    cache = 2 * 8192 * 32 * 4096 * 2
    assert memory(responses).activations == memory(gold).activations + cache
    assert memory(GoldReward(responses, RewardModel(MODEL, **HALF))) == memory(gold)
    assert memory(GoldReward(responses, WorldGold())) is None
    assert memory(GoldLabels(SPLIT.unlabeled, WorldGold())) is None
    assert memory(LABELS) is None


@pytest.mark.parametrize(
    ("step", "room", "fit"), [(FULL, 80, Fit(shards=4)), (FULL, 16, None), (TEACHER, 80, Fit())]
)
def test_how_a_training_fits(step, room, fit):
    assert plan_fit(step, SHAPE, RESOURCES, 512, room * GIB) == fit


def llama(folder, **changes):
    """A folder with the config of Llama-2-7B, no weights."""
    folder.mkdir()
    config = {
        "model_type": "llama", "vocab_size": 32_000, "hidden_size": 4096, "num_hidden_layers": 32,
        "intermediate_size": 11_008, "num_attention_heads": 32, **changes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return Model(f"sha256:{folder.name}", folder.name, str(folder))


@pytest.fixture
def steps(tmp_path):
    large, small = llama(tmp_path / "large"), llama(tmp_path / "small", num_hidden_layers=2)
    trained = [
        Sft(model, LABELS, SftRecipe(Schedule(1e-5, batch=32)), 0, **HALF)
        for model in (small, large)
    ]
    adapters = Dpo(trained[1], LABELS, TEACHER.recipe, 0, **HALF)
    return [LABELS, *trained, adapters, WeakLabels(adapters, SPLIT.unlabeled, **HALF)]


def test_footprints_tell_the_way_in_which_a_card_of_the_type_is_fitted(steps):
    resources = replace(RESOURCES, gpu_type="A100-80G")
    found = footprints(steps, resources, 512)
    assert [(one.kind, one.model, one.how) for one in found] == [
        ("Sft", "small", "whole"),
        ("Sft", "large", "sharded over 4"),
        ("Dpo", "large", "whole"),
        ("WeakLabels", "large", ""),
    ]
    assert found[0].fitted == found[0].whole
    assert found[1].fitted < 80 * GIB < found[1].whole
    one = footprints(steps, replace(resources, train_workers=1), 512)[1]
    assert (one.how, one.fit) == ("does not fit", None)
    assert one.fitted > 80 * GIB
    asked = footprints(steps, replace(resources, fit="whole-checkpointed"), 512)[1]
    assert asked.how == "does not fit"
    # Of an unknown card, or none, nothing can be said but what it takes.
    for unknown in (RESOURCES, Resources()):
        assert footprints(steps, unknown, 512)[1].how == "whole"


def test_dpo_of_a_model_that_no_card_reads_whole_does_not_fit_though_its_shards_would(tmp_path):
    """Llama-3-70B: its reference's log-probabilities are read before anything is sharded."""
    sizes = {"hidden_size": 8192, "num_hidden_layers": 80, "intermediate_size": 28_672}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128_256}
    model = llama(tmp_path / "llama-70b", **sizes, **heads)
    step, shape = replace(TEACHER, start=model), shape_for(model)
    resources = Resources(train_workers=8, gpus=1, gpu_type="A100-80G", train_tokens=2048)
    shards = training_memory(shape, 2048, "bfloat16", 8, 8, Fit(True, shards=8))
    assert shards.on_gpu < 40 * GIB
    assert plan_fit(step, shape, resources, 512, 80 * GIB) is None
    assert plan_fit(step, shape, resources, 512, 180 * GIB) == Fit(True)
    (one,) = footprints([step], resources, 512)
    assert one.how == "does not fit: DPO first reads it whole"
    assert 2 * shape.parameters < one.fitted < 2.4 * shape.parameters
    (problem,) = check_footprints([one], resources)
    assert problem.where == "Dpo of llama-70b"
    assert "--lora-base nf4" in problem.remedy
    in_4_bits = replace(TEACHER.recipe, lora=Lora(8, base="nf4"))
    assert plan_fit(replace(step, recipe=in_4_bits), shape, resources, 512, 80 * GIB)


def test_workers_are_one_where_a_card_holds_the_training_and_the_most_where_it_does_not(steps):
    one = Resources(train_workers=1, train_workers_max=4, gpus=1, gpu_type="A100-80G")
    few, many = (replace(one, train_workers=count, train_workers_max=0) for count in (1, 4))
    small, large, adapters = steps[1:4]
    shapes = [shape_for(step) for step in (small.start, large.start)]
    assert spread(small, shapes[0], one, 512) == few
    assert spread(large, shapes[1], one, 512) == many
    assert spread(adapters, shapes[1], one, 512) == few
    # Of an unknown model or card nothing is known that would speak for more workers.
    assert spread(large, None, one, 512) == few
    assert spread(large, shapes[1], replace(one, gpu_type=""), 512) == replace(few, gpu_type="")
    asked = replace(one, fit="sharded")
    assert spread(small, shapes[0], asked, 512) == replace(many, fit="sharded")
    assert spread(large, shapes[1], many, 512) == many
    found = footprints(steps, one, 512)
    assert [one.how for one in found] == ["whole", "sharded over 4", "whole", ""]
    tasks = tasks_of(steps[1:4], lambda step: 1.0, one, 512)
    assert [task.workers for task in tasks] == [1, 4, 1]
    assert widest(steps, one, 512) == many
    assert widest([small, adapters], one, 512) == few
    assert widest([], one, 512) == few
    assert widest(steps, many, 512) == many


def test_generation_draws_as_many_tokens_together_as_a_card_of_the_type_holds(steps):
    responses = Generate(steps[3], SPLIT.unlabeled, 0, **HALF)
    many = Resources(gpus=1, gpu_type="L4", batch_tokens=32_768)
    # 13 GB of weights, and half a megabyte for each token.
    assert responses.batch_tokens(many) == 8192
    assert responses.batch_tokens(replace(many, gpu_type="A100-80G")) == 32_768
    assert responses.batch_tokens(replace(many, gpu_type="")) == 32_768
    assert responses.batch_tokens(replace(many, gpu_type="T4", gpus=0.5)) == 1024
    (one,) = footprints([responses], many, 512)
    assert one.fitted < 22 * GIB
    assert check_footprints([one], many) == []


def card(name, *types, gpus=1):
    kinds = {f"accelerator_type:{kind}": 1 for kind in types}
    return NodeType(name, {"CPU": 8, "GPU": gpus, **kinds}, 1)


def test_where_no_type_is_asked_for_the_smallest_card_of_the_nodes_is_the_room(steps):
    head, unknown = NodeType("head", {"CPU": 8}, 1), card("new", "H999")
    a100 = card("a100", "A100", "A100-80G", gpus=8)
    nodes = [head, a100, card("l4", "L4"), unknown]
    assert smallest_card(nodes, RESOURCES) == 22 * GIB
    assert smallest_card(nodes, replace(RESOURCES, gpus=0.5)) == 11 * GIB
    assert smallest_card([head, a100, unknown], RESOURCES) == 79.2 * GIB
    assert smallest_card([head, unknown], RESOURCES) is None
    assert smallest_card(nodes, replace(RESOURCES, gpu_type="A100")) is None
    assert smallest_card(nodes, Resources()) is None
    (problem,) = check_cards(nodes, steps, RESOURCES, 512)
    assert problem.where == "Sft of large"
    assert "its share of the smallest GPU there is 22 GiB" in problem.what
    assert check_cards([a100], steps, RESOURCES, 512) == []
    assert check_cards([unknown], steps, RESOURCES, 512) == []


def test_what_workers_load_into_the_memory_of_their_host(steps):
    found = footprints(steps, replace(RESOURCES, gpu_type="A100-80G"), 512)
    weights = shape_for(steps[2].start).parameters
    told = {(one.kind, one.model): (one.loaded, one.workers) for one in found}
    assert told["Sft", "large"] == (4 * weights, 4)
    assert told["Dpo", "large"] == (2 * weights, 4)  # adapters are trained
    assert told["WeakLabels", "large"] == (0, 1)


def test_what_workers_load_must_fit_the_memory_of_hosts_that_are_there(steps):
    loaded = 4 * 4 * shape_for(steps[2].start).parameters
    resources = replace(RESOURCES, gpu_type="A100-80G")
    room = replace(card("host", "A100-80G", gpus=8), memory=loaded + 1.0)
    assert check_nodes([room], steps, resources, 512) == []
    assert check_nodes([replace(room, memory=None)], steps, resources, 512) == []
    (problem,) = check_nodes([room, replace(room, memory=loaded - 1.0)], steps, resources, 512)
    assert "the workers of Sft of large load about" in problem.what
    two = replace(card("two", "A100-80G", gpus=2), memory=loaded / 2)  # so many workers get there
    assert check_nodes([two], steps, resources, 512) == []


def test_the_table_has_the_largest_model_of_each_kind_and_way(steps):
    resources = replace(RESOURCES, gpu_type="A100-80G")
    console = Console(width=120, record=True)
    console.print(memory_table(footprints(steps, resources, 512), resources))
    rows = [line for line in console.export_text().splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert [row[:2] for row in cells] == [
        ["Sft", "small"], ["Sft", "large"], ["Dpo", "large"], ["WeakLabels", "large"],
    ]  # fmt: skip
    assert float(cells[1][2]) > 120
    assert float(cells[1][4]) < 80


def test_shapes_by_name_where_no_config_is_at_hand():
    hub = find_model("facebook/opt-1.3b", resolve=False)
    assert shape_for(hub).parameters == pytest.approx(1.3e9, rel=0.1)
    assert shape_for(find_model("opt-45k")).hidden == 32
    assert shape_for(find_model("some/model", resolve=False)) is None
