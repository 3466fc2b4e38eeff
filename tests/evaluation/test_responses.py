"""Sampling as work on a stream."""

import pyarrow as pa

from weakteach.artifacts.store import Store
from weakteach.evaluation.responses import Sampling
from weakteach.models.spec import find_model
from weakteach.worlds.world import world_pair


def test_several_samples_of_a_prompt_have_a_row_each_and_the_first_is_the_only_one(tmp_path):
    prompts = [world_pair(3, index).prompt for index in range(3)]
    chunk = pa.table({"prompt_id": ["a", "b", "c"], "prompt": prompts})
    where = (Store(tmp_path), find_model("opt-45k"))
    one, four = (Sampling(*where, 0, 0.7, 20, "float32", 512, samples) for samples in (1, 4))
    alone = one.process(one.load(), chunk)
    assert alone.column_names == ["prompt_id", "prompt", "response"]
    assert alone.drop(["response"]).equals(chunk)
    table = four.process(four.load(), chunk)
    assert table["prompt_id"].to_pylist() == list("aaaabbbbcccc")
    assert table["sample"].to_pylist() == [0, 1, 2, 3] * 3
    assert table["response"].to_pylist()[::4] == alone["response"].to_pylist()
