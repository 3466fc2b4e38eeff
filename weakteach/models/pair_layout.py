"""Pairs laid out as rows of tokens, in which each prompt stands once, and the attention for it.

A pair is a trunk (the prompt, and what both responses begin with) and two branches (the rest of
each response). All pairs of a batch stand in one row without padding: trunk, branch 1, branch 2,
trunk, … Position ids go on from the trunk in either branch. Everything but attention looks at
single tokens, so it never meets padding. A token attends to its trunk and its own branch alone, in
one of two ways: scaled dot-product attention sees one padded row per pair and a mask, flex
attention the packed row, of which it skips the blocks where nothing may be seen.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from weakteach.models.resources import Attention
from weakteach.models.tokens import PairTokens

LOGGER = logging.getLogger(__name__)
PAIR_ATTENTION = "weakteach_pairs"


@dataclass(frozen=True)
class PairLayout:
    """Where the tokens of a batch of pairs stand, for attention.

    ``slots`` of shape [pairs, longest] are the places in the packed row of each pair's tokens
    (padded with 0), ``places`` of shape [tokens] the way back into the flattened slots.
    ``positions`` have the shape of the slots; ``trunk`` and ``first`` are the ends of trunk and
    branch 1, of shape [pairs, 1, 1]. ``attention`` is how they are attended to.
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
        """Added to attention scores, shape [pairs, 1, longest, longest]; made once per batch.

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
        """The same for the packed row; made once per batch."""
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


@dataclass(frozen=True)
class Batch:
    """What a model reads at once, and which of its answers count.

    ``inputs`` are the base model's arguments. Score number i is the log-probability of token
    ``targets[i]`` after flat place ``predictors[i]``; it belongs to both responses of pair
    ``pairs[i]`` where ``sides[i]`` is [1, 1], to one of them where it is [1, 0] or [0, 1].
    """

    inputs: dict[str, Any]
    predictors: torch.Tensor
    targets: torch.Tensor
    pairs: torch.Tensor
    sides: torch.Tensor


class _Scores:
    """Collects what is to be scored."""

    def __init__(self) -> None:
        self.predictors: list[int] = []
        self.targets: list[int] = []
        self.pairs: list[int] = []
        self.sides: list[tuple[int, int]] = []

    def add(
        self, start: int, before: int, targets: list[int], pair: int, sides: tuple[int, int]
    ) -> None:
        """Tokens that stand from place ``start`` on, the first of them after place ``before``;
        a first token that nothing stands before (-1) has no probability."""
        predictors = [before, *range(start, start + len(targets) - 1)][: len(targets)]
        skipped = int(before < 0 and bool(targets))
        self.predictors += predictors[skipped:]
        self.targets += targets[skipped:]
        self.pairs += [pair] * (len(targets) - skipped)
        self.sides += [sides] * (len(targets) - skipped)

    def batch(self, inputs: dict[str, Any], device: torch.device) -> Batch:
        def whole(column: list[int]) -> torch.Tensor:
            return torch.tensor(column, dtype=torch.long, device=device)

        sides = torch.tensor(self.sides, dtype=torch.double, device=device).reshape(-1, 2)
        return Batch(inputs, whole(self.predictors), whole(self.targets), whole(self.pairs), sides)


def branch_point(pair: PairTokens) -> int:
    """Tokens that the two responses have in common at the front."""
    both = zip(pair.response_1, pair.response_2, strict=False)
    return sum(1 for _ in takewhile(lambda two: two[0] == two[1], both))


def packed_batch(
    pairs: Sequence[PairTokens], device: torch.device, attention: Attention = "sdpa"
) -> Batch:
    """Pairs in one row without padding, each prompt once; needs ``pair_attention``."""
    ids: list[int] = []
    positions: list[int] = []
    lengths, trunks, firsts = [], [], []
    scores = _Scores()
    for number, pair in enumerate(pairs):
        shared = branch_point(pair)
        trunk = pair.prompt + pair.response_1[:shared]
        branches = pair.response_1[shared:], pair.response_2[shared:]
        start, end = len(ids), len(ids) + len(trunk)
        prompt_end = start + len(pair.prompt)
        before = prompt_end - 1 if pair.prompt else -1
        scores.add(prompt_end, before, pair.response_1[:shared], number, (1, 1))
        ids += trunk
        positions += range(len(trunk))
        for branch, sides in zip(branches, ((1, 0), (0, 1)), strict=True):
            scores.add(len(ids), end - 1 if trunk else -1, branch, number, sides)
            ids += branch
            positions += range(len(trunk), len(trunk) + len(branch))
        lengths.append(len(ids) - start)
        trunks.append(len(trunk))
        firsts.append(len(trunk) + len(branches[0]))
    size = torch.tensor(lengths)
    longest = int(size.max())
    offsets = size.cumsum(0) - size
    real = torch.arange(longest) < size[:, None]
    slots = torch.where(real, offsets[:, None] + torch.arange(longest), 0)
    position = torch.tensor(positions)
    layout = PairLayout(
        attention=attention,
        slots=slots.to(device),
        places=real.flatten().nonzero()[:, 0].to(device),
        positions=position[slots].to(device),
        trunk=torch.tensor(trunks, device=device)[:, None, None],
        first=torch.tensor(firsts, device=device)[:, None, None],
    )
    inputs = {
        "input_ids": torch.tensor([ids], device=device),
        "position_ids": position[None].to(device),
        "pair_layout": layout,
    }
    return scores.batch(inputs, device)


def separate_batch(pairs: Sequence[PairTokens], device: torch.device) -> Batch:
    """Each response in a padded row of its own, after its prompt: for any causal model."""
    longest = max(pair.longest for pair in pairs)
    ids = torch.zeros(2 * len(pairs), longest, dtype=torch.long)
    scores = _Scores()
    for number, pair in enumerate(pairs):
        for side, response in enumerate((pair.response_1, pair.response_2)):
            row = 2 * number + side
            tokens = pair.prompt + response
            ids[row, : len(tokens)] = torch.tensor(tokens)
            start = row * longest + len(pair.prompt)
            before = start - 1 if pair.prompt else -1
            scores.add(start, before, response, number, (1 - side, side))
    # Padding comes last, and causal attention never looks that way: no mask is needed.
    return scores.batch({"input_ids": ids.to(device)}, device)


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
        picked = packed[0].transpose(0, 1).index_select(0, slots)
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
    return out.index_select(0, layout.places)[None]


def _attend_by_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PairLayout,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    out = _flex(query.device.type)(
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
    """Compiled where it is meant to run; on a CPU it makes all scores, the hidden ones too."""
    if device != "cpu":
        return torch.compile(flex_attention, dynamic=True)
    LOGGER.warning("Flex attention is slow on a CPU: leave out --attention flex")
    return flex_attention


AttentionInterface.register(PAIR_ATTENTION, pair_attention)


@contextmanager
def attending_in_pairs(model: PreTrainedModel) -> Iterator[None]:
    """The model's attention is ``pair_attention`` meanwhile."""
    before = model.config._attn_implementation
    model.set_attn_implementation(PAIR_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
