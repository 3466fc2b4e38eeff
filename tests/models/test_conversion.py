"""Pickled weights become safetensors once; hub repositories of every form, on a stand-in hub."""

import json
import os
import shutil

import pytest
import torch
from families import random_model
from hub_server import COMMIT, Repository, hub

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models import conversion, loading
from weakteach.models.conversion import ConversionError, write_safetensors
from weakteach.models.loading import Weights, load_causal, weights_folder, weights_of
from weakteach.models.spec import ModelError, find_model, tokenizer_of
from weakteach.models.tokens import load_tokenizer
from weakteach.steps.data import Converted
from weakteach.study.policies import policy_of, tokenizers_of

IDS = torch.arange(3, 23)[None]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def opt_names(state):
    """As in the repositories of OPT: no prefix, and no head, which is the embedding."""
    return {name.removeprefix("model."): t for name, t in state.items() if name != "lm_head.weight"}


def pickled_folder(folder, tiny, model, shards=1, names=dict):
    folder.mkdir()
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER_FILES:
        shutil.copy(tiny / name, folder)
    state = names(model.state_dict())
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    where = {name: f"pytorch_model-{i % shards + 1:05d}.bin" for i, name in enumerate(state)}
    for file in set(where.values()):
        torch.save({n: t for n, t in state.items() if where[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def converted(folder, store, dtype="float32"):
    step = policy_of(find_model(str(folder)), 0)
    assert isinstance(step, Converted)
    obtain(store, step)
    return load_causal(weights_of(store, step), dtype)


@pytest.mark.parametrize(("shards", "names"), [(3, dict), (1, opt_names)], ids=["sharded", "OPT"])
def test_a_tied_pickled_model_gives_the_same_logits_afterwards(tmp_path, tiny, shards, names):
    model = random_model("opt").half()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    folder = pickled_folder(tmp_path / "opt", tiny, model, shards, names)
    store = Store(tmp_path / "store")
    plain = converted(folder, store, "float16")
    assert plain.lm_head.weight is plain.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, model(IDS).logits)
    artifact = store.local(policy_of(find_model(str(folder)), 0))
    assert not list(artifact.glob("*.bin"))
    assert load_tokenizer(artifact)("a b")["input_ids"] == load_tokenizer(tiny)("a b")["input_ids"]


def test_a_large_model_is_converted_into_several_files(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(conversion, "WEIGHT_FILE_BYTES", 10_000)
    # In this process, where the bound is patched.
    monkeypatch.setattr(loading, "convert", conversion.write_safetensors)
    model = random_model("opt")
    folder = pickled_folder(tmp_path / "opt", tiny, model)
    store = Store(tmp_path / "store")
    plain = converted(folder, store)
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, model(IDS).logits)
    files = list(store.local(policy_of(find_model(str(folder)), 0)).glob("*.safetensors"))
    assert len(files) > 2


def test_a_head_of_its_own_stays_one(tmp_path, tiny):
    model = random_model("llama", tie_word_embeddings=False)
    write_safetensors(pickled_folder(tmp_path / "llama", tiny, model), tmp_path / "out")
    plain = load_causal(Weights(str(tmp_path / "out")))
    assert not torch.equal(plain.lm_head.weight, plain.get_input_embeddings().weight)
    with torch.no_grad():
        assert torch.equal(plain(IDS).logits, model(IDS).logits)


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def damage_hostile(folder):
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**state, "x": Hostile(folder / "ran")}, folder / "pytorch_model.bin")


def damage_cut(folder):
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_nested(folder):
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({"model": state}, folder / "pytorch_model.bin")


def damage_missing(folder):
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del state["model.decoder.layers.1.fc1.weight"]
    torch.save(state, folder / "pytorch_model.bin")


def damage_index(folder):
    where = {"weight_map": {"a": "../other/pytorch_model.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(where))


def damage_shard(folder):
    where = {"weight_map": {"a": "pytorch_model-00009.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(where))


def damage_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")


REFUSED = {
    damage_cut: "is damaged",
    damage_nested: "other things than named tensors",
    damage_missing: r"lacks weights of its model \(model.decoder.layers.1.fc1.weight\)",
    damage_index: "names a file of another folder",
    damage_shard: "pytorch_model-00009.bin is missing",
    damage_code: "its config cannot be read",
}


@pytest.mark.parametrize(("damage", "sentence"), REFUSED.items(), ids=lambda x: str(x)[10:24])
def test_what_is_not_plain_weights_is_refused_and_never_run(tmp_path, tiny, damage, sentence):
    folder = pickled_folder(tmp_path / "model", tiny, random_model("opt"))
    damage(folder)
    with pytest.raises(ConversionError, match=sentence):
        write_safetensors(folder, tmp_path / "out")
    assert not (folder / "ran").exists()


def test_a_hostile_pickle_is_refused_in_one_sentence(tmp_path, tiny):
    folder = pickled_folder(tmp_path / "model", tiny, random_model("opt"))
    damage_hostile(folder)
    store = Store(tmp_path / "store")
    sentence = "Model model cannot be converted: pytorch_model.bin wants more than tensors"
    with pytest.raises(ModelError, match=sentence):
        converted(folder, store)
    assert not (folder / "ran").exists()
    assert store.record(policy_of(find_model(str(folder)), 0)) is None


def safetensors_folder(folder, tiny, model):
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(tiny / name, folder)
    return folder


def test_the_hub_tells_which_weights_are_to_be_fetched(tmp_path, tiny):
    model = random_model("opt")
    both = safetensors_folder(tmp_path / "both", tiny, model)
    torch.save({"x": Hostile(tmp_path / "ran")}, both / "pytorch_model.bin")
    (both / "onnx").mkdir()
    shutil.copy(both / "model.safetensors", both / "onnx" / "model.safetensors")
    (both / "chat_template.jinja").write_text("{{ messages[0].content }}")
    pickled = pickled_folder(tmp_path / "pickled", tiny, model, shards=2, names=opt_names)
    empty = safetensors_folder(tmp_path / "empty", tiny, model)
    (empty / "model.safetensors").rename(empty / "flax_model.msgpack")
    repositories = {
        "some/both": Repository(both),
        "some/pickled": Repository(pickled),
        "some/empty": Repository(empty),
        "some/gated": Repository(both, gated=True),
    }
    with hub(tmp_path / "cache", models=repositories) as fetched:
        found = find_model("some/both")
        assert (found.content, found.is_pickled) == (f"some/both@{COMMIT}", False)
        assert policy_of(found, 0) is found
        plain = load_causal(Weights(str(weights_folder(found))))
        assert not any(name.endswith(".bin") or "onnx" in name for name in fetched)
        assert "some/both/chat_template.jinja" in fetched
        step = policy_of(find_model("some/pickled"), 0)
        assert isinstance(step, Converted)
        (tokenizer,) = tokenizers_of(step)
        assert load_tokenizer(tokenizer.location).eos_token_id == 2
        store = Store(tmp_path / "store")
        obtain(store, step)
        again = load_causal(weights_of(store, step))
        for loaded in (plain, again):
            with torch.no_grad():
                assert torch.equal(loaded(IDS).logits, model(IDS).logits)
        with pytest.raises(ModelError, match="no weights at the top of its files"):
            find_model("some/empty")
        with pytest.raises(ModelError, match="There is no model some/other on the hub"):
            find_model("some/other")
        with pytest.raises(ModelError, match="some/gated is gated: accept its terms"):
            tokenizer_of(find_model("some/gated"))
    assert not (tmp_path / "ran").exists()


def test_how_weights_come_is_no_identity(tmp_path, tiny):
    with hub(tmp_path, models={"some/model": Repository(tiny)}):
        found = find_model("some/model")
    assert (
        Converted(found).fingerprint
        == Converted(type(found)(found.content, is_pickled=True)).fingerprint
    )
