"""Similarity of texts by a sentence-embedding model, as work on a stream."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from weakteach.artifacts.errors import StepError
from weakteach.labeling.shards import ChunkWork
from weakteach.models.spec import Dtype, Model, ModelError


@dataclass(frozen=True)
class SentenceSimilarity(ChunkWork):
    """Reads ``prompt_id, response, chosen`` and gives ``prompt_id, similarity``: the cosine of the
    two texts' vectors, in [-1, 1]."""

    model: Model
    dtype: Dtype
    batch_tokens: int

    def load(self) -> Any:
        import torch  # workers only, as all below

        from weakteach.models.loading import device, weights_folder

        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelError(
                "Similarity needs sentence-transformers: pip install 'weakteach[similarity]'"
            ) from error
        folder = weights_folder(self.model)
        if not (folder / "modules.json").is_file():
            raise ModelError(
                f"{self.model.label} is no sentence-embedding model: it has no modules.json; give "
                "all-minilm-l6-v2, or a folder or hub id of sentence-transformers"
            )
        return SentenceTransformer(
            str(folder),
            device=str(device()),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": getattr(torch, self.dtype)},
        )

    def process(self, loaded: Any, rows: pa.Table) -> pa.Table:
        texts = rows["response"].to_pylist() + rows["chosen"].to_pylist()
        batch = max(1, self.batch_tokens // loaded.max_seq_length)
        vectors = loaded.encode(
            texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
        response, chosen = np.split(vectors.astype(np.float64), 2)
        cosines = (response * chosen).sum(axis=1)
        ids = rows["prompt_id"].to_pylist()
        bad = np.flatnonzero(~np.isfinite(cosines))
        if len(bad):
            raise StepError(
                f"The similarity for prompt {ids[bad[0]]} is {cosines[bad[0]]}: the weights of "
                f"{self.model.label} are broken, or overflow in {self.dtype}"
            )
        return pa.table({"prompt_id": pa.array(ids, pa.string()), "similarity": cosines})
