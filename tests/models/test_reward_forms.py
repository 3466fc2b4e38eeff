"""Reward models of each form, against what their cards compute: one response at a time."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from families import LLAMA_LIKE
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.evaluation.gold import RewardModel, Scoring
from weakteach.models.spec import ModelError, find_model
from weakteach.models.tokens import load_tokenizer
from weakteach.preferences.messages import messages_of
from weakteach.preferences.sources import WorldSource
from weakteach.steps.data import HeldOut, Pairs
from weakteach.steps.labels import GoldLabels
from weakteach.study.policies import policy_of, tokenizers_of

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PROMPTS = [
    "\n\nHuman: what is the sky ?\n\nAssistant:",
    "\n\nHuman: hello .\n\nAssistant: hello , what now ?\n\nHuman: sing me a song\n\nAssistant:",
    "a post about nothing at all TL;DR:",
]
RESPONSES = [" blue .", " a song of the sky and the sea , and of what lies below", " nothing ."]


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = [
    said(("user", "what is the sky ?")),
    said(("user", "hello ."), ("assistant", "hello , what now ?"), ("user", "sing me a song")),
    said(("user", "a post about nothing at all TL;DR:")),
]


def random_head(config, folder):
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory, tiny):
    """A mistral without a pad token, as those of the preset are."""
    folder = tmp_path_factory.mktemp("chat")
    random_head(MistralConfig(**{**LLAMA_LIKE, "pad_token_id": None}, num_labels=1), folder)
    tokenizer = load_tokenizer(tiny)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    assert (folder / "chat_template.jinja").exists()
    return folder


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    words = dict.fromkeys(" ".join([*PROMPTS, *RESPONSES]).replace(":", " : ").split())
    marks = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {word: number for number, word in enumerate([*marks, *words])}
    bare = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    bare.pre_tokenizer = Whitespace()
    bare.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    config = DebertaV2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        relative_attention=True,
        type_vocab_size=2,
        num_labels=1,
    )
    random_head(config, folder)
    return folder


def scored(folder, form, prompts, responses, batch_tokens=1000):
    gold = RewardModel(find_model(str(folder)), form=form)
    work = Scoring(Store(folder), gold, "prompt_id", ("response",), batch_tokens)
    table = {"prompt_id": list(map(str, range(len(prompts)))), "prompt": prompts}
    rows = pa.table({**table, "response": responses})
    result = work.process(work.load(), work.prepare(work.load_reader(), rows))
    return result["response_reward"].to_numpy(), result["response_cut"].to_pylist()


def parts(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def test_a_transcript_is_read_as_its_conversation():
    assert [messages_of(prompt) for prompt in PROMPTS] == CONVERSATIONS
    assert messages_of(PROMPTS[0].lstrip()) == CONVERSATIONS[0]
    assert messages_of("Be kind." + PROMPTS[0]) == [
        *said(("system", "Be kind.")),
        *CONVERSATIONS[0],
    ]


@pytest.mark.parametrize("batch_tokens", [1, 1000])
def test_a_chat_gold_reads_its_own_template(chat_folder, batch_tokens):
    model, tokenizer = parts(chat_folder)
    expected = []
    for messages, response in zip(CONVERSATIONS, RESPONSES, strict=True):
        text = "".join(
            f"[INST] {turn['content']} [/INST]"
            if turn["role"] == "user"
            else f" {turn['content']}{tokenizer.eos_token}"
            for turn in (*messages, *said(("assistant", response.strip())))
        )
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            expected.append(model(torch.tensor([ids])).logits.item())
    rewards, cut = scored(chat_folder, "chat", PROMPTS, RESPONSES, batch_tokens)
    assert np.abs(rewards - expected).max() < 1e-5
    assert cut == [False] * 3
    as_text, _ = scored(chat_folder, "text", PROMPTS, RESPONSES)
    assert np.abs(rewards - as_text).min() > 1e-3


@pytest.mark.parametrize("batch_tokens", [1, 1000])
def test_a_pair_gold_reads_question_and_answer(pair_folder, batch_tokens):
    model, tokenizer = parts(pair_folder)
    with torch.no_grad():
        question = tokenizer("what is the sky ?", "blue .", return_tensors="pt")
        assert question["token_type_ids"].unique().tolist() == [0, 1]
        expected = model(**question).logits.item()
        post = tokenizer(PROMPTS[2], "nothing .", return_tensors="pt")
        expected_post = model(**post).logits.item()
    rewards, cut = scored(pair_folder, "pair", PROMPTS, RESPONSES, batch_tokens)
    assert rewards[0] == pytest.approx(expected, abs=1e-5)
    assert rewards[2] == pytest.approx(expected_post, abs=1e-5)
    assert cut == [False, True, False]  # 24 tokens do not hold the second one


def test_what_does_not_fit_is_told_in_every_form(chat_folder, pair_folder):
    endless = " blue" * 600
    for form, folder in (("text", chat_folder), ("chat", chat_folder), ("pair", pair_folder)):
        rewards, cut = scored(folder, form, PROMPTS[:1] * 2, [endless, " blue ."])
        assert cut == [True, False]
        assert np.isfinite(rewards).all()


def test_a_system_turn_that_the_template_refuses_stands_before_the_users(chat_folder):
    ours, _ = scored(chat_folder, "chat", ["Be kind." + PROMPTS[0]], RESPONSES[:1])
    prompt = "\n\nHuman: Be kind.\n\nwhat is the sky ?\n\nAssistant:"
    theirs, _ = scored(chat_folder, "chat", [prompt], RESPONSES[:1])
    assert ours == theirs != scored(chat_folder, "chat", PROMPTS[:1], RESPONSES[:1])[0]


def test_messages_are_read_where_there_are_any(chat_folder):
    """In the form of texts too, which is that of models that were trained here."""
    gold = RewardModel(find_model(str(chat_folder)), form="text")
    work = Scoring(Store(chat_folder), gold, "prompt_id", ("response",), 1000)
    table = {"prompt_id": ["a", "b"], "prompt": [PROMPTS[1]] * 2, "response": RESPONSES[:2]}
    said = {"prompt_messages": [json.dumps(CONVERSATIONS[1]), None], "tools": [None, None]}
    prepared = work.prepare(work.load_reader(), pa.table(table | said))
    result = work.process(work.load(), prepared)["response_reward"].to_pylist()
    as_chat, _ = scored(chat_folder, "chat", [PROMPTS[1]], RESPONSES[:1])
    as_text, _ = scored(chat_folder, "text", [PROMPTS[1]], RESPONSES[1:2])
    assert result == pytest.approx([as_chat[0], as_text[0]], abs=1e-5)


def test_a_model_without_a_template_is_refused(pair_folder):
    with pytest.raises(ModelError, match="has no chat template"):
        scored(pair_folder, "chat", PROMPTS, RESPONSES)


def test_the_form_is_identity_and_text_is_the_form_of_old(chat_folder, tiny):
    model = find_model(str(chat_folder))
    student = policy_of(find_model("opt-45k"), 0)
    part = HeldOut(Pairs(WorldSource(64), tokenizers_of(student)), 16).test
    prints = [
        GoldLabels(part, gold).fingerprint
        for gold in (
            RewardModel(model),
            RewardModel(model, form="text"),
            RewardModel(model, form="chat"),
        )
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.usefixtures("ray_here")
def test_a_step_counts_what_its_gold_could_not_read(pair_folder, tmp_path):
    student = policy_of(find_model("opt-45k"), 0)
    part = HeldOut(Pairs(WorldSource(64), tokenizers_of(student)), 16).test
    store = Store(tmp_path)
    record = obtain(store, GoldLabels(part, RewardModel(find_model(str(pair_folder)), form="pair")))
    tokenizer = AutoTokenizer.from_pretrained(pair_folder)
    too_long = 0
    for pair in part.read(store).to_pylist():
        messages, whole = messages_of(pair["prompt"]), pair["prompt"].strip()
        question = messages[0]["content"] if len(messages) == 1 else whole
        for name in ("response_1", "response_2"):
            too_long += len(tokenizer(question, pair[name].strip())["input_ids"]) > 24
    assert record["facts"]["cut"] == too_long > 0
