"""How a training finds out on its workers how it fits, and when it is to save."""

from types import SimpleNamespace

import pytest
from families import random_model

from weakteach.artifacts.errors import StepError
from weakteach.models.memory import Fit, shape_of, starting_memory, training_memory
from weakteach.models.resources import Resources
from weakteach.models.tokens import PairTokens
from weakteach.training import fitting
from weakteach.training.fitting import find_fit, require_room
from weakteach.training.recipes import DpoRecipe, Lora, Schedule
from weakteach.training.worker import CheckpointNowAndThen

PAIRS = [PairTokens([5] * 40, [6] * 60, [7] * 10), PairTokens([5] * 4, [6], [7])]
MODEL = random_model("llama")


def job(lora=None, **resources):
    recipe = DpoRecipe(Schedule(1e-5, batch=8), lora=lora)
    return SimpleNamespace(recipe=recipe, resources=Resources(**resources), dtype="float32")


@pytest.fixture
def devices(monkeypatch):
    """As many workers, with a device of so many bytes each."""

    def have(*room):
        monkeypatch.setattr(fitting, "world_size", lambda: len(room))
        monkeypatch.setattr(fitting, "_room", lambda gpus: min(room))

    return have


def bytes_of(fit, workers):
    tokens = 8 // workers * 2 * 100
    return training_memory(shape_of(MODEL.config.to_dict()), tokens, "float32", 0, workers, fit)


@pytest.mark.parametrize("fit", [Fit(), Fit(True), Fit(shards=4), Fit(True, 4)], ids=str)
def test_the_first_way_that_fits_the_smallest_device(devices, fit, monkeypatch):
    """The estimates of tiny models stand too close together, so they are made to differ."""
    order = [Fit(), Fit(True), Fit(shards=4), Fit(True, 4)]
    monkeypatch.setattr(
        "weakteach.models.memory.training_memory",
        lambda *given: SimpleNamespace(on_gpu=100 - 10 * order.index(given[5])),
    )
    devices(1000, 100 - 10 * order.index(fit), 1000, 1000)
    assert find_fit(job(), MODEL, PAIRS) == fit


def test_the_estimate_is_that_of_the_longest_pair_and_the_share_of_a_batch(devices):
    needed = bytes_of(Fit(), 2).on_gpu
    devices(needed, needed)
    assert find_fit(job(), MODEL, PAIRS) == Fit()
    devices(needed - 1, needed)
    assert find_fit(job(), MODEL, PAIRS) != Fit()


def test_what_fits_in_no_way_is_told_with_the_remedy(devices):
    devices(1 << 20)
    with pytest.raises(StepError, match=r"--train-workers.*LoRA.*--train-tokens"):
        find_fit(job(), MODEL, PAIRS)
    assert find_fit(job(fit="whole"), MODEL, PAIRS) == Fit()


def test_dpo_needs_a_device_that_reads_the_whole_model(devices):
    shape, four = shape_of(MODEL.config.to_dict()), {"train_workers": 4, "gpus": 1}
    needed = starting_memory(shape, Resources().batch_tokens, "float32", 0).on_gpu
    devices(*[needed] * 4)
    require_room(job(**four), MODEL)
    devices(*[needed - 1] * 4)
    with pytest.raises(StepError, match="DPO reads the model whole before it trains"):
        require_room(job(**four), MODEL)
    require_room(job(**four, fit="sharded"), MODEL)


def test_a_cpu_takes_what_there_is_and_what_is_asked_for(monkeypatch):
    assert find_fit(job(), MODEL, PAIRS) == Fit()
    assert find_fit(job(fit="whole-checkpointed"), MODEL, PAIRS) == Fit(True)
    monkeypatch.setattr(fitting, "world_size", lambda: 2)
    asked = job(fit="sharded", train_workers=2, gpus=1)
    monkeypatch.setattr(fitting, "_room", lambda gpus: None)
    with pytest.raises(StepError, match="a training without GPUs is not sharded"):
        find_fit(asked, MODEL, PAIRS)


def test_adapters_below_a_reward_head_are_not_sharded(devices):
    devices(1 << 40, 1 << 40)
    head = random_model("llama")
    head.set_output_embeddings(None)
    asked = job(Lora(4), fit="sharded", train_workers=2, gpus=1)
    with pytest.raises(StepError, match="a reward head over adapters"):
        find_fit(asked, head, PAIRS)
    assert find_fit(asked, MODEL, PAIRS) == Fit(shards=2)


def saved_at(seconds, updates=40, first=0, **resources):
    """The updates after which a training saves whose three first ones take so many seconds."""
    now = iter(seconds * number for number in range(10 * updates))
    callback, saved = CheckpointNowAndThen(Resources(**resources), lambda: next(now)), []
    for step in range(first + 1, updates + 1):
        state = SimpleNamespace(global_step=step, max_steps=updates)
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        callback.on_step_end(None, state, control)
        saved += [step] * control.should_save
    return saved


@pytest.mark.parametrize(
    ("seconds", "resources", "saved"),
    [
        # The clock is asked twice, at the first update and three later.
        (180.0, {}, [10, 20, 30]),
        (180.0, {"checkpoint_minutes": 20.0}, [20]),
        (1e-3, {}, []),
        (1.0, {"checkpoint_steps": 15}, [15, 30]),
        (7200.0, {}, list(range(4, 40))),
    ],
)
def test_checkpoints_by_minutes_or_by_updates_but_not_at_the_end(seconds, resources, saved):
    assert saved_at(seconds, **resources) == saved


def test_a_resumed_training_times_its_own_first_updates():
    assert saved_at(180.0, first=17) == [30]
