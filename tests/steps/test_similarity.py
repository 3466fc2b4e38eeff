"""Similarity of generations to the chosen responses, under a real sentence-embedding model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import prompt_id
from weakteach.evaluation.similarity import SentenceSimilarity
from weakteach.models.resources import Resources
from weakteach.models.spec import ModelError, find_model
from weakteach.preferences.pair import CHOICE_SCHEMA, DataError
from weakteach.steps.data import Part
from weakteach.steps.evaluation import Similarity

MINILM = find_model("all-minilm-l6-v2")
# Prompt, chosen and rejected response of some pairs; two are of one prompt.
PAIRS = [
    ("How do I boil an egg?", "Put it in boiling water for ten minutes.", "Ask your mother."),
    ("How do I boil an egg?", "Let it cook in hot water.", "No."),
    ("Is it cold in winter?", "Yes, most often it is.", "Bananas are yellow."),
    ("Who wrote Faust?", "It was Goethe.", "It was Schiller."),
]
RESPONSES = {
    "How do I boil an egg?": "Cook the egg in boiling water.",
    "Is it cold in winter?": "Yes, most often it is.",
    "Nobody asked this": "So nobody answers.",
}


@dataclass(frozen=True)
class GivenPairs(Step):
    """The pairs above; the last one has no human choice."""

    def compute(self, workspace):
        ids = [f"{i:02d}" for i in range(len(PAIRS))]
        prompts, chosen, rejected = (list(column) for column in zip(*PAIRS, strict=True))
        table = {"pair_id": ids, "prompt": prompts, "response_1": rejected, "response_2": chosen}
        pq.write_table(pa.table(table), workspace.out / "given.parquet")
        choices = pa.table([ids[:-1], [2] * (len(ids) - 1)], CHOICE_SCHEMA)
        pq.write_table(choices, workspace.out / "choices.parquet")
        return {"rows": len(ids)}


@dataclass(frozen=True)
class GivenResponses(Step):
    prompts: tuple[str, ...]

    def compute(self, workspace):
        ids = [prompt_id(prompt) for prompt in self.prompts]
        responses = [RESPONSES[prompt] for prompt in self.prompts]
        table = {"prompt_id": ids, "prompt": list(self.prompts), "response": responses}
        pq.write_table(pa.table(table), workspace.out / "responses.parquet")
        return {"rows": len(ids)}


def plain_cosine(text, other):
    """By the model's own recipe: the mean of the last layer over the tokens, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM.location)
    model = AutoModel.from_pretrained(MINILM.location)
    with torch.no_grad():
        first, second = (
            model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0].mean(0)
            for t in (text, other)
        )
    return torch.cosine_similarity(first, second, dim=0).item()


def test_each_prompt_has_the_mean_cosine_to_its_chosen_responses(tmp_path, ray_here):
    store, part = Store(tmp_path), Part(GivenPairs(), "given")
    step = Similarity(GivenResponses(tuple(RESPONSES)), part, MINILM)
    facts = obtain(store, step, Resources())["facts"]
    file = store.local(step) / "similarity.parquet"
    found = dict(zip(*pq.read_table(file).to_pydict().values(), strict=True))
    egg, winter = list(RESPONSES)[:2]
    cosines = [plain_cosine(RESPONSES[egg], chosen) for _, chosen, _ in PAIRS[:2]]
    wanted = {prompt_id(egg): np.mean(cosines), prompt_id(winter): 1.0}
    assert found == pytest.approx(wanted, abs=1e-5)
    assert (facts["rows"], facts["pairs"]) == (2, 3)
    assert facts["mean"] == pytest.approx(np.mean(list(wanted.values())), abs=1e-5)


def test_responses_to_other_prompts_are_refused(tmp_path):
    responses = GivenResponses(("Nobody asked this",))
    step = Similarity(responses, Part(GivenPairs(), "given"), MINILM)
    with pytest.raises(DataError, match="No response is to a prompt"):
        obtain(Store(tmp_path), step, Resources())


def test_a_model_that_embeds_no_sentences_is_refused():
    with pytest.raises(ModelError, match="opt-45k is no sentence-embedding model"):
        SentenceSimilarity(find_model("opt-45k"), "float32", 4096).load()


def test_broken_weights_are_an_error_that_names_the_prompt():
    work = SentenceSimilarity(MINILM, "float32", 4096)
    loaded = work.load()
    with torch.no_grad():
        next(loaded.parameters()).fill_(float("nan"))
    chunk = pa.table({"prompt_id": ["p1"], "response": ["yes"], "chosen": ["no"]})
    with pytest.raises(StepError, match="prompt p1 is nan"):
        work.process(loaded, chunk)
