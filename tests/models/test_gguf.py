import numpy as np
import pytest
import torch
from gguf_files import write_gguf

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.store import Store
from weakteach.models import loading
from weakteach.models.loading import load_causal, weights_of
from weakteach.models.spec import ModelError, find_model
from weakteach.models.tokens import load_tokenizer
from weakteach.steps.data import Dequantized


def test_a_gguf_file_becomes_a_plain_model_once(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "WEIGHT_FILE_BYTES", 10_000)
    embedding = write_gguf(tmp_path / "tiny.gguf")
    store, step = Store(tmp_path / "store"), Dequantized(find_model(str(tmp_path / "tiny.gguf")))
    record = obtain(store, step)
    assert obtain(store, step) == record
    weights = weights_of(store, step)
    assert len(list(store.local(step).glob("*.safetensors"))) > 2  # as those of large models are
    model = load_causal(weights)
    assert not hasattr(model.config, "quantization_config")
    loaded = model.get_input_embeddings().weight.detach().numpy()
    assert np.abs(loaded - embedding).max() < 2e-3  # what eight bits keep
    tokenizer = load_tokenizer(weights.base)
    ids = tokenizer("abc def")["input_ids"]
    assert tokenizer.decode(ids) == "abc def"
    assert torch.isfinite(model(torch.tensor([ids])).logits).all()


@pytest.mark.parametrize(
    "rope", ["rope_freqs.weight", "rope_factors_long.weight", "linear", "none"]
)
def test_scaled_positions_are_refused_since_they_would_be_lost(tmp_path, rope):
    write_gguf(tmp_path / "tiny.gguf", rope)
    step = Dequantized(find_model(str(tmp_path / "tiny.gguf")))
    if rope == "none":
        obtain(Store(tmp_path / "store"), step)
        return
    with pytest.raises(ModelError, match=rf"scales .*{rope}.*: give the model's own folder or hub"):
        obtain(Store(tmp_path / "store"), step)
