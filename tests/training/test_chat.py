"""Messages through every step that reads pairs: all of them see the same tokens."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_models import chat_folder
from transformers import AutoModelForSequenceClassification

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import RewardModel
from weakteach.evaluation.responses import Sampling
from weakteach.labeling.annotators import ImplicitReward, RewardHeadReward
from weakteach.models import generation
from weakteach.models.loading import Weights, load_causal
from weakteach.models.logprobs import pair_logprobs
from weakteach.models.resources import Resources
from weakteach.models.spec import find_model
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.pair import messages_in, preference_set
from weakteach.preferences.sources import data_source
from weakteach.steps.data import HeldOut, Pairs, labels_file, read_labels
from weakteach.steps.evaluation import Generate, GoldReward
from weakteach.steps.labels import HumanLabels
from weakteach.study.policies import tokenizers_of
from weakteach.training.dpo import dpo_trainer
from weakteach.training.recipes import DpoRecipe, RewardRecipe, Schedule, SftRecipe
from weakteach.training.reward_head import reward_trainer
from weakteach.training.sft import sft_trainer
from weakteach.training.worker import TrainingJob


def row(number):
    """Every third without messages."""
    texts = {"chosen": f"indeed , {number}", "rejected": f"whatever , {number}"}
    if number % 3 == 2:
        return {"prompt": f"what is {number} ?", **texts}
    said = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return {"prompt": [{"role": "user", "content": f"what is {number} ?"}], **said}


@pytest.fixture(scope="module", params=["BOS", "thinking", None])
def world(request, tmp_path_factory):
    """A model, a store with human labels of the pairs, and these labels."""
    folder = tmp_path_factory.mktemp("world")
    model = find_model(str(chat_folder(folder / "model", request.param)))
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row(n)) + "\n" for n in range(12)))
    store, labels = (
        Store(folder / "store"),
        HumanLabels(Pairs(data_source(str(file)), tokenizers_of(model)).all),
    )
    obtain(store, labels)
    return request.param, model, store, labels


def expected(world):
    """Ids of prompt, chosen and rejected of each pair by pair id, from the texts alone."""
    template, model, store, labels = world
    tokenizer = load_tokenizer(model.location)
    table = preference_set(labels.part.read(store), read_labels(store, labels))
    found = {}
    for pair, said in zip(table.to_pylist(), messages_in(table, "chosen", "rejected"), strict=True):
        if template is None or said is None:
            ids = [
                [*tokenizer(pair["prompt"] + pair[side])["input_ids"], tokenizer.eos_token_id]
                for side in ("chosen", "rejected")
            ]
        else:
            ids = [
                tokenizer.apply_chat_template(json.loads(said.prompt) + json.loads(side))
                for side in (said.first, said.second)
            ]
            ids = [one["input_ids"] for one in ids]
        found[pair["pair_id"]] = ids
    assert len(found) == 12
    return found


def job(world, recipe, folder):
    _, model, store, labels = world
    return TrainingJob(
        store=store, start=model, pairs=labels.part.file(store), labels=labels_file(store, labels),
        recipe=recipe, seed=0, dtype="float32", resources=Resources(), stage=str(folder),
        run_folder=str(folder),
    )  # fmt: skip


def test_all_trainings_see_the_same_tokens(world, tmp_path):
    schedule = Schedule(1e-3, batch=4)
    wanted = list(expected(world).values())
    for trainer in (
        dpo_trainer(job(world, DpoRecipe(schedule), tmp_path)),
        reward_trainer(job(world, RewardRecipe(schedule), tmp_path)),
    ):
        seen = [[p.prompt + p.response_1, p.prompt + p.response_2] for p in trainer.pairs]
        assert seen == wanted
    sft = sft_trainer(job(world, SftRecipe(schedule), tmp_path))
    assert [p.prompt + p.response_1 for p in sft.pairs] == [chosen for chosen, _ in wanted]


def test_labeling_sees_the_tokens_of_training(world, tmp_path):
    _, model, store, labels = world
    chunk = labels.part.read(store)
    other = find_model(str(chat_folder(tmp_path / "other", world[0], "pythia")))
    annotator = ImplicitReward(store, other, model, 0.5, "float32", 4096)
    prepared = annotator.prepare(annotator.load_reader(), chunk)
    found = annotator.process(annotator.load(), prepared).to_pylist()
    choices = {r["pair_id"]: r["choice"] for r in read_labels(store, labels).to_pylist()}
    trainer = dpo_trainer(job(world, DpoRecipe(Schedule(1e-3, batch=4)), tmp_path))
    policy, reference = (load_causal(Weights(m.location)) for m in (other, model))
    gap = 0.5 * np.subtract(*(pair_logprobs(m, trainer.pairs, 4096) for m in (policy, reference)))
    wanted = dict(zip(expected(world), gap, strict=True))
    for label in found:
        chosen, rejected = wanted[label["pair_id"]]
        both = (chosen, rejected) if choices[label["pair_id"]] == 1 else (rejected, chosen)
        assert (label["reward_1"], label["reward_2"]) == pytest.approx(both, abs=1e-3)


def test_a_reward_head_reads_the_tokens_that_it_was_trained_on(world, tmp_path, monkeypatch):
    _, model, store, labels = world
    reward_trainer(job(world, RewardRecipe(Schedule(1e-3, batch=4)), tmp_path)).save_model(
        str(tmp_path / "head")
    )
    load_tokenizer(model.location).save_pretrained(tmp_path / "head")
    head = find_model(str(tmp_path / "head"))
    seen = []
    forward = AutoModelForSequenceClassification.from_pretrained(head.location).__class__.forward

    def spy(self, *args, **kwargs):
        rows = zip(kwargs["input_ids"].tolist(), kwargs["attention_mask"].sum(1), strict=True)
        seen.extend(tuple(ids[:length]) for ids, length in rows)
        return forward(self, *args, **kwargs)

    annotator = RewardHeadReward(store, head, "float32", 4096)
    loaded = annotator.load()
    monkeypatch.setattr(type(loaded[0]), "forward", spy)
    prepared = annotator.prepare(annotator.load_reader(), labels.part.read(store))
    annotator.process(loaded, prepared)
    assert sorted(seen) == sorted(tuple(ids) for both in expected(world).values() for ids in both)


def test_responses_end_where_the_models_turns_do(world, monkeypatch):
    template, model, store, labels = world
    tokenizer = load_tokenizer(model.location)
    words = tokenizer("so it is", add_special_tokens=False)["input_ids"]
    drawn = [*words, tokenizer.convert_tokens_to_ids("<|im_end|>"), *words]
    step = {}

    def draw(logits, uniforms, temperature):
        at = step["at"] = step.get("at", -1) + 1
        return logits.new_full((len(logits),), drawn[at]).long()

    monkeypatch.setattr(generation, "draw_tokens", draw)
    work = Sampling(store, model, 0, 0.7, len(drawn), "float32", 10**6)
    chunk = labels.part.read(store).rename_columns({"pair_id": "prompt_id"})
    result = work.process(work.load(), chunk).to_pylist()
    for response in result:
        is_chat = template is not None and response["prompt_messages"] is not None
        assert response["response"] == (" so it is" if is_chat else "so it isso it is")


def test_generated_responses_are_scored_as_conversations(world, tmp_path, ray_here):
    template, model, store, labels = world
    part = HeldOut(labels.part.step, 5).test
    responses = Generate(model, part, seed=0, max_new_tokens=5)
    reward_trainer(job(world, RewardRecipe(Schedule(1e-3, batch=4)), tmp_path)).save_model(
        str(tmp_path / "head")
    )
    load_tokenizer(model.location).save_pretrained(tmp_path / "head")
    gold = GoldReward(responses, RewardModel(find_model(str(tmp_path / "head"))))
    facts = obtain(store, gold, Resources(label_tasks=1))["facts"]
    assert facts["rows"] == 5
    found = pq.read_table(f"{store.path(responses)}/responses.parquet").to_pylist()
    for one in found:
        if one["prompt_messages"] is not None and template is not None:
            assert one["response"].startswith(" ")
            assert one["prompt"].endswith("\n\nAssistant:")
    assert {r["prompt_messages"] is None for r in found} <= {True, False}
