"""Sampling as work on a stream."""

import pyarrow as pa
import pytest
from chat_models import chat_folder

from weakteach.artifacts.store import Store
from weakteach.evaluation.responses import Sampling
from weakteach.models import generation
from weakteach.models.spec import find_model
from weakteach.models.tokens import load_tokenizer
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


@pytest.mark.parametrize(
    ("drawn", "stored"),
    [
        ("so it is", " so it is"),
        ("<think>\n\n</think>\n\nso it is", " so it is"),
        ("is it</think> it is</think> so it is", " so it is"),
        ("<think>so it is", " <think>so it is"),
        ("so it is</think>", " "),
    ],
)
def test_what_is_thought_before_an_answer_is_no_part_of_the_response(
    tmp_path, monkeypatch, drawn, stored
):
    model = find_model(str(chat_folder(tmp_path / "model", "thinking")))
    tokenizer = load_tokenizer(model.location)
    ids = tokenizer(drawn, add_special_tokens=False)["input_ids"]
    left = iter([*ids, tokenizer.convert_tokens_to_ids("<|im_end|>")])
    monkeypatch.setattr(
        generation, "draw_tokens", lambda logits, *_: logits.new_full((1,), next(left)).long()
    )
    said = '[{"role": "user", "content": "is it so?"}]'
    chunk = pa.table(
        {
            "prompt_id": ["a"],
            "prompt": ["\n\nHuman: is it so?\n\nAssistant:"],
            "prompt_messages": [said],
            "tools": pa.array([None], pa.string()),
        }
    )
    work = Sampling(Store(tmp_path), model, 0, 0.7, 40, "float32", 10**6)
    assert work.process(work.load(), chunk)["response"].to_pylist() == [stored]
