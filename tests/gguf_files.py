"""A tiny GGUF model."""

from pathlib import Path

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, FFN = 32, 1, 2, 64


def write_gguf(path: Path, rope: str = "") -> np.ndarray:
    """Write a random llama of one layer with a byte-level vocabulary; returns its embedding.
    ``rope`` is a kind of scaling of positions, or a tensor that holds its factors."""
    tokens = ["<|endoftext|>", *(chr(c) for c in range(33, 127)), "Ġ", "ab"]
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    if rope.endswith(".weight"):
        writer.add_tensor(rope, np.ones(HIDDEN // HEADS // 2, "float32"))
    elif rope:
        writer.add_string("llama.rope.scaling.type", rope)
    shapes = {
        "token_embd.weight": (len(tokens), HIDDEN),
        "output.weight": (len(tokens), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_v.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate.weight": (FFN, HIDDEN),
        "blk.0.ffn_up.weight": (FFN, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, FFN),
    }
    weights = {
        name: random.normal(0, 0.1, shape).astype("float32") for name, shape in shapes.items()
    }
    for name, weight in weights.items():
        if name == "token_embd.weight":
            quantized = gguf.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights["token_embd.weight"]
