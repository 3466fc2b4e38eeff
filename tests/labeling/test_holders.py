"""Actors that hold a model serve one stream after the other, and are given back."""

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.cloudpickle

from weakteach.artifacts.errors import LostError
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import RewardModel, Scoring, WorldGold
from weakteach.evaluation.responses import Sampling
from weakteach.labeling.holders import HELD_SECONDS, LOSSES_OF_A_SHARD, Holders
from weakteach.labeling.shards import ChunkWork, Stream
from weakteach.labeling.stream import stream_chunks
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
SOON_SECONDS = HELD_SECONDS / 2
ONE = Resources(label_actors=1)


def ask_for_all_cpus():
    """Returns once no holder has one."""
    with_all = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(lambda: None)
    ray.get(with_all.remote(), timeout=SOON_SECONDS)


def wait_until(holds):
    deadline = time.monotonic() + SOON_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass(frozen=True)
class Times(ChunkWork):
    """Multiplies. Its model, which is a folder, notes the processes that load it."""

    model: str
    factor: int
    dies: bool = False
    makers: int = 1

    def model_key(self):
        return replace(self, factor=0)

    def load(self):
        with open(Path(self.model, "loads"), "a") as file:
            file.write(f"{os.getpid()}\n")

    def process(self, loaded, rows):
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        Path(self.model, f"maker-{os.getpid()}").touch()
        wait_until(lambda: len(list(Path(self.model).glob("maker-*"))) >= self.makers)
        product = [self.factor * number for number in rows["number"].to_pylist()]
        return rows.append_column("product", pa.array(product))


@pytest.fixture
def times(tmp_path):
    """Streams through a model of this test."""
    pq.write_table(pa.table({"number": range(60)}), tmp_path / "in.parquet")

    def stream(factor, **model):
        return Stream(
            Store(tmp_path),
            str(tmp_path / "in.parquet"),
            str(tmp_path / f"shards-{factor}"),
            Times(str(tmp_path), factor, **model),
            key="number",
            chunk_rows=10,
        )

    return stream


def products(stream, resources):
    return pa.concat_tables(stream_chunks(stream, resources).tables())["product"].to_pylist()


def loads(tmp_path):
    return (tmp_path / "loads").read_text().split()


def test_a_model_is_loaded_once_for_all_streams_that_read_it(tmp_path, ray_here, times):
    for factor in (2, 3, 5):
        assert products(times(factor), ONE) == [factor * number for number in range(60)]
    assert len(loads(tmp_path)) == 1


def test_a_holder_is_given_back_when_something_waits_for_what_it_takes(tmp_path, ray_here, times):
    products(times(2), ONE)
    ask_for_all_cpus()
    products(times(3), ONE)
    assert len(loads(tmp_path)) == 2


def test_a_holder_without_work_is_given_back_in_time(ray_here, times):
    stream = times(2)
    stream.store.filesystem.create_dir(stream.shards)
    ask_for_all_cpus()
    holders = ray.remote(Holders).options(num_cpus=0).remote(held_seconds=0.5)
    asked = pa.table({"start": [0], "stop": [10]})
    (made,) = ray.get(holders.make.remote([ray.put(asked)], stream, ONE)).to_pylist()
    assert (made["rows"], made["error"]) == (10, "")
    wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])


def test_there_are_more_holders_where_the_cluster_has_room(tmp_path, ray_here, times):
    growing = Resources(label_actors=1, label_actors_max=2)
    assert products(times(2, makers=2), growing) == [2 * number for number in range(60)]
    assert len(set(loads(tmp_path))) == 2


@pytest.mark.slow
@pytest.mark.ci
def test_a_shard_that_takes_its_holders_down_is_lost_after_some(tmp_path, ray_here, times):
    with pytest.raises(LostError, match="its actor was lost"):
        stream_chunks(replace(times(2, dies=True), chunk_rows=60), ONE)
    assert len(loads(tmp_path)) == LOSSES_OF_A_SHARD


def test_what_a_work_loads_depends_on_its_model_alone(tmp_path):
    store, one, other = Store(tmp_path), find_model("opt-45k"), find_model("opt-230k")
    pairs = Scoring(store, RewardModel(one), "pair_id", ("response_1", "response_2"), 64)
    responses = Scoring(store, RewardModel(one), "prompt_id", ("response",), 8192)
    assert pairs.model_key() == responses.model_key()
    for gold in (RewardModel(other), RewardModel(one, "bfloat16"), WorldGold()):
        assert replace(pairs, gold=gold).model_key() != pairs.model_key()
    sampling = Sampling(store, one, 7, 1.0, 64, "float32", 8192)
    again = replace(sampling, seed=8, max_new_tokens=9, samples=4, temperature=0.5)
    assert again.model_key() == sampling.model_key()
    for changed in ({"policy": other}, {"dtype": "bfloat16"}, {"store": Store(tmp_path / "b")}):
        assert replace(sampling, **changed).model_key() != sampling.model_key()
