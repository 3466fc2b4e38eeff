"""Pairs laid out as rows of tokens, in which each prompt stands once.

A pair is a trunk (the prompt, and what both responses begin with) and two branches (the rest of
each response); where the second response is empty, there is one branch. All pairs of a batch stand
in one row without padding: trunk, branch 1, branch 2, trunk, … In either branch, position ids
continue from the trunk. Everything but attention works on single tokens, so it never meets padding.

Labeling, reference log-probabilities and every training lay their pairs out here. Where ``probe``
finds that a model does not read such rows correctly, each response has a padded row of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from weakteach.models.pair_attention import PairLayout
from weakteach.models.resources import Attention
from weakteach.models.tokens import PairTokens


@dataclass(frozen=True)
class Batch:
    """What a model reads at once, and which of its predictions count.

    ``inputs`` are the base model's arguments. Score i is the log-probability of token
    ``targets[i]``, predicted at flat place ``predictors[i]``. The token belongs to pair
    ``pairs[i]``: to both responses where ``sides[i]`` is [1, 1], to the first alone where it is
    [1, 0], to the second alone where it is [0, 1]; ``columns[i]`` is its number within the
    response. ``ends``, of shape [2, pairs], are the flat places where the sequences with the first
    and the second responses end.
    """

    inputs: dict[str, Any]
    predictors: torch.Tensor
    targets: torch.Tensor
    pairs: torch.Tensor
    sides: torch.Tensor
    columns: torch.Tensor
    ends: torch.Tensor


def cut_by_tokens(pairs: Sequence[PairTokens], most: int, packed: bool) -> list[list[int]]:
    """Indices of pairs in batches of similar length, shortest first. As it is laid out, a batch has
    at most ``most`` tokens, padding included, or is a single longer pair."""
    lengths = [_packed_length(p) if packed else _responses(p) * p.longest for p in pairs]
    batches: list[list[int]] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches:
            total = total + lengths[index] if packed else (len(batches[-1]) + 1) * lengths[index]
        if not batches or total > most:
            batches.append([])
            total = lengths[index]
        batches[-1].append(index)
    return batches


def _responses(pair: PairTokens) -> int:
    return 2 if pair.response_2 else 1


def _packed_length(pair: PairTokens) -> int:
    return pair.total - pair.shared


def lay_out(
    pairs: Sequence[PairTokens],
    device: torch.device,
    packed: bool,
    attention: Attention = "sdpa",
    pad: int | None = None,
) -> Batch:
    """The pairs laid out in one row if ``packed``, else with a row for each response. For ``ends``,
    tokens ``pad`` at the end of a sequence are not counted as part of it."""
    if packed:
        return packed_batch(pairs, device, attention, pad)
    return separate_batch(pairs, device, pad)


def packed_batch(
    pairs: Sequence[PairTokens],
    device: torch.device,
    attention: Attention = "sdpa",
    pad: int | None = None,
) -> Batch:
    """Pairs in one row without padding, each prompt once; needs ``pair_attention``."""
    ids: list[int] = []
    for one in pairs:
        ids += one.prompt
        ids += one.response_1
        ids += one.response_2[one.shared :]
    shared = np.array([one.shared for one in pairs])
    prompt, first, second = _lengths(pairs)
    trunk, first, second = prompt + shared, first - shared, second - shared
    size = trunk + first + second
    start = size.cumsum() - size

    pair = np.arange(len(pairs)).repeat(size)  # per place in the row, like the next arrays
    place = np.arange(len(ids)) - start[pair]
    is_trunk, is_second = place < trunk[pair], place >= (trunk + first)[pair]
    position = place - first[pair] * is_second
    begins_second = place == (trunk + first)[pair]
    predictor = np.where(begins_second, trunk[pair], place) - 1

    longest = int(size.max())
    real = np.arange(longest) < size[:, None]
    slots = np.where(real, start[:, None] + np.arange(longest), 0)
    last = _lasts(pairs, pad)
    ends = np.stack([last[0], np.where(last[1] < trunk, last[1], last[1] + first)]) + start

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    layout = PairLayout(
        attention=attention,
        slots=there(slots),
        places=there(real.ravel().nonzero()[0]),
        positions=there(position[slots]),
        trunk=there(trunk[:, None, None]),
        first=there((trunk + first)[:, None, None]),
    )
    row = np.array(ids, dtype=np.int64)
    counts = (place >= prompt[pair]) & (predictor >= 0)
    return Batch(
        inputs={
            "input_ids": there(row[None]),
            "position_ids": there(position[None]),
            "pair_layout": layout,
        },
        predictors=there((start[pair] + predictor)[counts]),
        targets=there(row[counts]),
        pairs=there(pair[counts]),
        sides=there(np.stack([~is_second, is_trunk | is_second], 1)[counts].astype(np.float64)),
        columns=there((position - prompt[pair])[counts]),
        ends=there(ends),
    )


def separate_batch(
    pairs: Sequence[PairTokens], device: torch.device, pad: int | None = None
) -> Batch:
    """Each response in a padded row of its own, after its prompt: for any causal model."""
    ids: list[int] = []
    for pair in pairs:
        for response in (pair.response_1, pair.response_2)[: _responses(pair)]:
            ids += pair.prompt
            ids += response
    prompt, *both = _lengths(pairs)
    responses = np.array([_responses(pair) for pair in pairs])
    start = responses.cumsum() - responses

    number = np.arange(len(pairs)).repeat(responses)  # per row, like side and size
    side = np.arange(len(number)) - start[number]
    size = prompt[number] + np.stack(both)[side, number]

    longest = int(size.max())
    column = np.arange(longest)
    real = column < size[:, None]
    rows = np.zeros(real.shape, dtype=np.int64)
    rows[real] = ids
    begin = np.maximum(prompt, 1)[number]  # the first token of a row has no probability
    row, place = (real & (column >= begin[:, None])).nonzero()
    first, second = _lasts(pairs, pad)
    second = np.where(responses > 1, second, first)
    ends = np.stack([start, start + responses - 1]) * longest + np.stack([first, second])

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    # Padding comes last, and causal attention never looks that way: no mask is needed.
    return Batch(
        inputs={"input_ids": there(rows)},
        predictors=there(row * longest + place - 1),
        targets=there(rows[row, place]),
        pairs=there(number[row]),
        sides=there(np.eye(2)[side[row]]),
        columns=there(place - prompt[number[row]]),
        ends=there(ends),
    )


def _lengths(pairs: Sequence[PairTokens]) -> list[np.ndarray]:
    """Token counts of the prompts, the first and the second responses, each of shape [pairs]."""
    texts = ("prompt", "response_1", "response_2")
    return [np.array([len(getattr(pair, text)) for pair in pairs]) for text in texts]


def _lasts(pairs: Sequence[PairTokens], pad: int | None) -> np.ndarray:
    """The positions where the sequences of both responses end, shape [2, pairs]."""
    if pad is None:
        prompt, *both = _lengths(pairs)
        return np.maximum(prompt + np.stack(both) - 1, 0)
    both_sides = (
        [pair.prompt + pair.response_1 for pair in pairs],
        [pair.prompt + pair.response_2 for pair in pairs],
    )
    return np.array([[_last(tokens, pad) for tokens in side] for side in both_sides])


def _last(tokens: list[int], pad: int) -> int:
    """The place of the last token that is not ``pad``; 0 if all after the first are."""
    return next((at for at in range(len(tokens) - 1, 0, -1) if tokens[at] != pad), 0)
