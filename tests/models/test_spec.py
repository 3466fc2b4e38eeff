import shutil

import pytest

from weakteach.models.loading import weights_folder
from weakteach.models.spec import UNRESOLVED, Model, ModelError, find_model, tokenizer_of


def test_a_folders_identity_is_its_content_and_never_its_place(tiny, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(tiny, here)
    shutil.copytree(tiny, there)
    assert find_model(str(here)) == find_model(str(there)) == find_model("opt-45k")
    config = (there / "config.json").read_text()
    (there / "config.json").write_text(config + "\n")
    assert find_model(str(here)) != find_model(str(there))


@pytest.mark.parametrize(
    "note", [".gitattributes", ".git/HEAD", ".cache/huggingface/download/config.json.metadata"]
)
def test_what_tools_note_in_hidden_places_is_no_part_of_a_models_identity(tiny, tmp_path, note):
    folder = tmp_path / ".models/here"
    shutil.copytree(tiny, folder)
    (folder / note).parent.mkdir(parents=True, exist_ok=True)
    (folder / note).write_text("1750000000.5")
    assert find_model(str(folder)) == find_model("opt-45k")
    (folder / "more").mkdir()
    (folder / "more/weights").touch()
    assert find_model(str(folder)) != find_model("opt-45k")


def test_models_of_a_family_share_one_tokenizer():
    names = ("opt-45k", "opt-230k", "opt-1m", "opt-4m", "llama-230k")
    assert len({tokenizer_of(find_model(name)) for name in names}) == 1


def test_an_embedded_model_that_is_not_shipped_is_made_by_the_study():
    model = find_model("llama-230k")
    assert model.is_untrained
    assert not find_model("opt-230k").is_untrained
    assert tokenizer_of(model) == tokenizer_of(find_model("opt-230k"))
    with pytest.raises(ModelError, match="weakteach pretrain llama-230k"):
        weights_folder(model)


def test_a_hub_id_is_planned_without_asking_the_hub():
    assert find_model("gpt2", resolve=False) == Model(f"gpt2@{UNRESOLVED}", "gpt2", "gpt2")
    model = find_model("facebook/opt-125m", resolve=False)
    assert model == Model(f"facebook/opt-125m@{UNRESOLVED}")
    assert tokenizer_of(model).content == model.content


BAD = {
    "opt-9k": "Unknown model 'opt-9k': give an embedded one",
    "no model": "Unknown model 'no model': give an embedded one",
    "gpt-9": "gpt-9 is neither embedded nor a folder or .gguf file here",
    "nowhere.gguf": "no GGUF file",
    "somebody/model": "cannot be looked up on the hub",
}


@pytest.mark.parametrize(("name", "sentence"), BAD.items())
def test_what_cannot_be_found_is_said_with_a_remedy(name, sentence):
    with pytest.raises(ModelError, match=sentence):
        find_model(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_model(str(tmp_path))
