"""How much memory of a device a step takes at its peak: weights, what training adds, and what a
batch holds. Pure functions of a model's shape that need no torch, so that plans can use them.

What a layer keeps for its backward pass was counted in the graph of transformers' layers with a
fused attention kernel, which keeps no scores; tests compare the estimates with measured peaks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weakteach.models.resources import FITS, FitName
from weakteach.models.spec import CONFIG, Dtype, read_config

FLOAT32, ADAM = 4, 8
# Bytes of a weight in NF4: 4 bits, plus a scale of 8 bits for every 64 weights and a float32 for
# every 256 scales (double quantization).
NF4 = 0.5 + (1 + FLOAT32 / 256) / 64
DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2}
# Families with LayerNorm and two feed-forward matrices; all others have a third one, for gating.
UNGATED = {
    "opt", "gpt2", "gpt_neox", "gpt_neo", "gptj", "bloom", "phi", "codegen", "deberta-v2",
    "starcoder2", "falcon", "mpt",
}  # fmt: skip
LEARNED_POSITIONS = {"opt", "gpt2", "gpt_neo"}
# Families whose head is not tied to the embeddings where the config does not say.
UNTIED = {
    "llama", "mistral", "qwen2", "qwen3", "gpt_neox", "olmo2", "phi3", "mixtral", "qwen2_moe",
    "qwen3_moe", "olmoe",
}  # fmt: skip
# Numbers that a layer keeps per token, in widths of hidden states and of keys; and in widths of the
# feed-forward, by the kind of layer (what ReLU keeps is also what the next matrix keeps).
KEPT_GATED, KEPT_UNGATED = (10.0, 1.5), (6.0, 2.0)
KEPT_FEED_GATED, KEPT_FEED, KEPT_FEED_RELU = 3.8, 2.0, 1.0
# TRL's fused head works in tiles of this many tokens by this many logits. It holds a whole tile in
# the dtype, however small the vocabulary, and float32 copies of the part that it fills.
TILE_TOKENS, TILE_LOGITS, TILE_COPIES = 4096, 32_768, 3
# Logits that exist at a time where log-probabilities are read. On a CPU, 16 MiB in float32 stay in
# the cache, yet are enough for the matrix product to run at full speed. Any other device reads the
# head's weights from its memory once per chunk: with a vocabulary of 128,000, a chunk holds 512
# tokens, and reading the weights takes less time than computing with them.
CPU_LOGITS, DEVICE_LOGITS = 1 << 22, 1 << 26
# Bytes that a process holds on a GPU before it computes (context, workspaces), and the share that
# is lost in its allocator.
CONTEXT_BYTES, FRAGMENTED = 1 << 30, 0.05


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder from which its memory follows. ``feed_forward`` is the width that a
    token goes through, ``stored`` that of all experts of a layer together."""

    vocabulary: int
    hidden: int
    layers: int
    queries: int
    keys: int
    feed_forward: int
    positions: int
    is_tied: bool
    is_gated: bool
    is_relu: bool
    stored: int = 0

    @property
    def layer_parameters(self) -> int:
        attention = 2 * self.hidden * (self.queries + self.keys)
        width = self.stored or self.feed_forward
        return attention + (3 if self.is_gated else 2) * self.hidden * width

    @property
    def parameters(self) -> int:
        tables = (1 if self.is_tied else 2) * self.vocabulary + self.positions
        return self.layers * self.layer_parameters + tables * self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of LoRA on all projections of every layer."""
        widths = 4 * self.hidden + 2 * self.queries + 2 * self.keys
        matrices = 3 if self.is_gated else 2
        return self.layers * rank * (widths + matrices * (self.hidden + self.feed_forward))


def of_text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a multimodal model's language model, which stands within that of the whole.
    What it does not say, the whole does."""
    return {**config, **(config.get("text_config") or {})}


def feed_forward_widths(config: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Width of the feed-forward that a token goes through in a layer of a text model, and width of
    all that is stored: that of all experts, if it is a mixture of them. Layers without experts,
    which some mixtures have, count as the others."""

    def first(*names: str) -> int:
        return next((n for name in names if isinstance(n := config.get(name), int) and n), 0)

    plain = first("intermediate_size", "ffn_dim", "n_inner") or 4 * hidden
    experts = first("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if not experts:
        return plain, plain
    width = first("moe_intermediate_size", "expert_intermediate_size") or plain
    shared = first("shared_expert_intermediate_size", "shared_intermediate_size")
    shared = shared or width * first("n_shared_experts", "num_shared_experts")
    read = first("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_k") or 1
    return shared + width * read, shared + width * experts


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape of a model by its config (``config.json``, in the spelling of any family); None if
    the config tells too little."""
    config = of_text(config)

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    hidden = first("hidden_size", "n_embd", "d_model")
    layers = first("num_hidden_layers", "n_layer", "num_layers")
    vocabulary = first("vocab_size")
    if not (hidden and layers and vocabulary):
        return None
    heads = first("num_attention_heads", "n_head", "num_heads") or 1
    width = first("head_dim") or hidden // heads
    keys = first("num_key_value_heads") or heads
    kind = first("model_type")
    is_tied = first("tie_word_embeddings")
    read, stored = feed_forward_widths(config, hidden)
    return Shape(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        queries=heads * width,
        keys=keys * width,
        feed_forward=read,
        positions=(first("max_position_embeddings", "n_positions") or 0)
        * (kind in LEARNED_POSITIONS),
        # Where a config does not say, transformers ties.
        is_tied=kind not in UNTIED if is_tied is None else bool(is_tied),
        is_gated=kind not in UNGATED,
        is_relu=first("activation_function", "hidden_act") == "relu",
        stored=stored,
    )


def typical_shape(parameters: float) -> Shape:
    """The shape assumed for a decoder of which only the number of parameters is known: layers of
    12 width² weights, a width of about 100 times their number, and a tied vocabulary of 50,000.
    """
    vocabulary, width = 50_000, 64
    while 12 * width**3 / 100 + vocabulary * width < parameters:
        width += 64
    layers = max(1, round((parameters - vocabulary * width) / (12 * width**2)))
    return Shape(
        vocabulary=vocabulary, hidden=width, layers=layers, queries=width, keys=width,
        feed_forward=4 * width, positions=0, is_tied=True, is_gated=False, is_relu=False,
    )  # fmt: skip


def shape_in(folder: str | Path) -> Shape | None:
    """The shape of the model in a folder; None if its config is missing or tells too little. Raises
    ModelError if it cannot be read."""
    return shape_of(read_config(Path(folder))) if (Path(folder) / CONFIG).is_file() else None


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the peak of a step, by what they are for."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    buckets: float = 0.0
    activations: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        parts = (self.weights, self.gradients, self.optimizer, self.buckets)
        return sum(parts) + self.activations + self.logits

    @property
    def on_gpu(self) -> float:
        """The total, plus what the process and its allocator take of a GPU besides."""
        return CONTEXT_BYTES + self.total * (1 + FRAGMENTED)


@dataclass(frozen=True)
class Fit:
    """How a training is made to fit its devices. ``shards`` is the number of workers over which
    weights, gradients and optimizer state are split (FSDP); 1 leaves a whole copy on each."""

    activation_checkpointing: bool = False
    shards: int = 1

    def arguments(self) -> dict[str, Any]:
        """Arguments for TRL's configurations.

        The layers do the checkpointing, not FSDP. FSDP would gather the weights once less in the
        backward pass, but it wraps the layers, and peft then finds no adapter by its name, neither
        for checkpoints nor for the model that is written.
        """
        how = {"activation_checkpointing": self.activation_checkpointing}
        if self.shards == 1:
            return how
        sharding = {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "activation_checkpointing": False,
            "state_dict_type": "FULL_STATE_DICT",
        }
        return {"fsdp": True, "fsdp_config": sharding, **how}


def tokens_at_once(share: int, rows: int, length: int, most: int) -> int:
    """Tokens that a device reads at once. Its ``share`` of an update's pairs, each of ``rows`` rows
    of ``length`` tokens, is cut into parts of at most ``most`` tokens, or of one pair."""
    pair = rows * length
    return max(pair, min(share * pair, most))


def training_memory(
    shape: Shape,
    tokens: int,
    dtype: Dtype = "float32",
    lora_rank: int = 0,
    workers: int = 1,
    fit: Fit | None = None,
    over_nf4: bool = False,
) -> Memory:
    """Memory of one training worker that reads ``tokens`` tokens at once, padding included.

    Trained weights, their gradients and AdamW's two sums are in float32; autocast to bfloat16
    copies the trained weights, unless they are sharded. Weights below adapters are frozen, in the
    dtype; with ``over_nf4`` those of the layers are in 4 bits, and one matrix at a time in the
    dtype. Data-parallel workers with whole copies hold the gradients again in buckets.
    """
    fit = fit or Fit()
    trained = shape.adapter_parameters(lora_rank) if lora_rank else shape.parameters
    size = DTYPE_BYTES[dtype]
    frozen = (_in_nf4(shape, size) if over_nf4 else shape.parameters * size) if lora_rank else 0
    cast = 0 if dtype == "float32" or fit.shards > 1 else size * trained
    weights = (frozen + trained * FLOAT32) / fit.shards
    if fit.shards > 1:  # two layers are gathered at a time, one in use and one on its way
        weights += 2 * shape.layer_parameters * FLOAT32
    return Memory(
        weights=weights + cast,
        gradients=trained * FLOAT32 / fit.shards,
        optimizer=trained * ADAM / fit.shards,
        buckets=trained * FLOAT32 if workers > 1 and fit.shards == 1 else 0,
        activations=_kept(shape, tokens, size, fit.activation_checkpointing),
        logits=min(tokens, TILE_TOKENS)
        * (TILE_LOGITS * size + TILE_COPIES * min(shape.vocabulary, TILE_LOGITS) * FLOAT32),
    )


def choose_fit(
    shape: Shape,
    tokens: int,
    dtype: Dtype,
    lora_rank: int,
    workers: int,
    room: float,
    ways: Sequence[Fit],
    over_nf4: bool = False,
) -> Fit | None:
    """The first of the ``ways`` in which a training fits ``room`` bytes of a GPU; None if none
    does."""
    for fit in ways:
        memory = training_memory(shape, tokens, dtype, lora_rank, workers, fit, over_nf4)
        if memory.on_gpu <= room:
            return fit
    return None


def ways_to_fit(asked: FitName, workers: int) -> list[Fit]:
    """The fits to try, the cheapest first, or only the one that was asked for."""
    whole, sharded = (
        [Fit(checkpointing, shards) for checkpointing in (False, True)]
        for shards in (1, max(1, workers))
    )
    named = dict(zip(FITS, (*whole, *sharded), strict=True))
    if asked != "auto":
        return [named[asked]]
    return [*whole, *sharded] if workers > 1 else whole


def reading_memory(
    shape: Shape,
    tokens: int,
    dtype: Dtype = "float32",
    models: int = 1,
    most_logits: int = DEVICE_LOGITS,
) -> Memory:
    """Memory of labeling, scoring or generation that reads ``tokens`` tokens at once. ``models`` is
    2 for a policy beside its reference, 1 for a policy that is an adapter on it. At most
    ``most_logits`` logits exist at a time."""
    size = DTYPE_BYTES[dtype]
    widest = max(6 * shape.hidden, shape.queries + 2 * shape.keys, 3 * shape.feed_forward)
    layer = tokens * (widest + 3 * shape.hidden) * size
    # When the logits are made, the layers are done, and only their results are left.
    logits = 2.0 * FLOAT32 * min(most_logits, tokens * shape.vocabulary)
    left = 2 * tokens * shape.hidden * size
    return Memory(
        weights=models * shape.parameters * size,
        activations=max(layer - logits, left),
        logits=logits,
    )


def generation_memory(shape: Shape, tokens: int, dtype: Dtype) -> Memory:
    """Memory of generation with ``tokens`` tokens at once, prompts included: what reading them
    takes, and their keys and values."""
    read = reading_memory(shape, tokens, dtype)
    cache = 2 * tokens * shape.layers * shape.keys * DTYPE_BYTES[dtype]
    return replace(read, activations=read.activations + cache)


def starting_memory(
    shape: Shape, tokens: int, dtype: Dtype, lora_rank: int, over_nf4: bool = False
) -> Memory:
    """Memory of a DPO worker before it trains: the whole model that it starts from, in the dtype in
    which it is loaded, reads ``tokens`` tokens at once for the reference's log-probabilities.
    Nothing is sharded yet."""
    memory = reading_memory(shape, tokens, dtype if lora_rank else "float32")
    return replace(memory, weights=_in_nf4(shape, DTYPE_BYTES[dtype])) if over_nf4 else memory


def _in_nf4(shape: Shape, size: int) -> float:
    layers = shape.layers * shape.layer_parameters
    widest = shape.hidden * max(shape.feed_forward, shape.queries)
    return NF4 * layers + size * (shape.parameters - layers + widest)


def _kept(shape: Shape, tokens: int, size: int, checkpointing: bool) -> float:
    per_hidden, per_key = KEPT_GATED if shape.is_gated else KEPT_UNGATED
    per_feed = KEPT_FEED_RELU if shape.is_relu else KEPT_FEED
    per_feed = KEPT_FEED_GATED if shape.is_gated else per_feed
    layer = per_hidden * shape.hidden + per_key * shape.keys + per_feed * shape.feed_forward
    kept = shape.hidden * shape.layers + layer if checkpointing else layer * shape.layers
    return tokens * size * (kept + 4 * shape.hidden)
