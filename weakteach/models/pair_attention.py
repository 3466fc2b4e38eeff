"""Attention in a packed row of pairs (``pair_layout``), in which each prompt stands once.

A token attends to its trunk and its own branch alone, in one of two ways. Scaled dot-product
attention sees one padded row per pair and a mask. Flex attention sees the packed row itself and
skips blocks in which no token may attend to another.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from weakteach.models.resources import Attention
from weakteach.models.spec import ModelError

LOGGER = logging.getLogger(__name__)
PAIR_ATTENTION = "weakteach_pairs"
# Triton multiplies no smaller matrices.
LEAST_FLEX_WIDTH = 16


@dataclass(frozen=True)
class PairLayout:
    """Where the tokens of a batch of pairs stand, for attention.

    ``slots``, of shape [pairs, longest], are the places of each pair's tokens in the packed row
    (padded with 0); ``places``, of shape [tokens], are the reverse: the places of the row's tokens
    in the flattened slots. ``positions`` are the position ids, in the shape of the slots; ``trunk``
    and ``first``, of shape [pairs, 1, 1], are the ends of trunk and branch 1 within each pair.
    ``attention`` is how the tokens are attended to.
    """

    attention: Attention
    slots: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    trunk: torch.Tensor
    first: torch.Tensor
    masks: dict[Any, torch.Tensor] = field(default_factory=dict)
    block_masks: dict[int | None, BlockMask] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """The mask that is added to attention scores, shape [pairs, 1, longest, longest]; made once
        per batch.

        A ``window`` counts positions, as it does where each response has its own sequence.
        """
        if (window, dtype) not in self.masks:
            place = torch.arange(self.slots.shape[1], device=self.slots.device)
            query, key = place[:, None], place[None, :]
            hidden = (key > query) | (
                (key >= self.trunk) & (key < self.first) & (query >= self.first)
            )
            if window is not None:
                hidden |= self.positions[:, :, None] - self.positions[:, None, :] >= window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            mask.masked_fill_(hidden, torch.finfo(dtype).min)
            self.masks[window, dtype] = mask[:, None]
        return self.masks[window, dtype]

    def block_mask(self, window: int | None) -> BlockMask:
        """The same mask for flex attention over the packed row; made once per batch."""
        if window not in self.block_masks:
            longest = self.slots.shape[1]
            pair, place = self.places // longest, self.places % longest
            position = self.positions.flatten()[self.places]
            in_trunk = place < self.trunk.flatten()[pair]
            in_second = place >= self.first.flatten()[pair]

            def seen(_: Any, __: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
                own = in_trunk[key] | (in_second[key] == in_second[query])
                seen = (pair[query] == pair[key]) & (key <= query) & own
                if window is not None:
                    seen = seen & (position[query] - position[key] < window)
                return seen

            tokens, where = len(self.places), str(self.places.device)
            self.block_masks[window] = create_block_mask(seen, None, None, tokens, tokens, where)
        return self.block_masks[window]


def pair_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    pair_layout: PairLayout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each pair of a packed row (transformers' attention interface).

    Query of shape [1, heads, tokens, width]; key and value may have fewer heads. Returns
    [1, tokens, heads, width].
    """
    assert pair_layout is not None, "this model does not hand its arguments on to attention"
    attend = {"sdpa": _attend_by_rows, "flex": _attend_by_blocks}[pair_layout.attention]
    return attend(query, key, value, pair_layout, scaling, sliding_window), None


def _attend_by_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PairLayout,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    count, longest = layout.slots.shape
    slots = layout.slots.flatten()

    def rows(packed: torch.Tensor) -> torch.Tensor:
        heads, _, width = packed.shape[1:]
        picked = _ToRows.apply(packed[0].transpose(0, 1), slots, layout.places)
        return picked.view(count, longest, heads, width).transpose(1, 2)

    query, key, value = rows(query), rows(key), rows(value)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    mask = layout.mask(window, query.dtype)
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling
    )
    out = out.transpose(1, 2).reshape(count * longest, *query.shape[1::2])
    return _FromRows.apply(out, layout.places)[None]


class _ToRows(torch.autograd.Function):
    """Puts tokens into padded rows. No gradient comes from padding, so the backward pass can select
    rows, where torch would compute a slow sum."""

    @staticmethod
    def forward(
        ctx: Any, packed: torch.Tensor, slots: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(places)
        return packed.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _FromRows(torch.autograd.Function):
    """Takes tokens out of padded rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.count = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (places,) = ctx.saved_tensors
        rows = gradient.new_zeros(ctx.count, *gradient.shape[1:])
        return rows.index_copy_(0, places, gradient), None


def _attend_by_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PairLayout,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    device, width = query.device.type, min(query.shape[-1], value.shape[-1])
    if device != "cpu" and width < LEAST_FLEX_WIDTH:
        raise ModelError(
            f"--attention flex takes heads of a width of {LEAST_FLEX_WIDTH} or more on a GPU, and "
            f"those of this model are {width} wide: leave the option out"
        )
    out = _flex(device)(
        query,
        key,
        value,
        block_mask=layout.block_mask(window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


@cache
def _flex(device: str) -> Any:
    """Flex attention, compiled except on a CPU, where it computes all scores, even those that the
    mask hides."""
    if device != "cpu":
        return torch.compile(flex_attention, dynamic=True)
    LOGGER.warning("Flex attention is slow on a CPU: leave out --attention flex")
    return flex_attention


AttentionInterface.register(PAIR_ATTENTION, pair_attention)


@contextmanager
def attending_in_pairs(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model's attention is ``pair_attention``."""
    before = model.config._attn_implementation
    model.set_attn_implementation(PAIR_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
