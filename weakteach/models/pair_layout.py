"""Pairs laid out as rows of tokens, in which each prompt stands once.

A pair is a trunk (the prompt, and what both responses begin with) and two branches (the rest of
each response); where the second response is empty, there is one branch. All pairs of a batch stand
in one row without padding: trunk, branch 1, branch 2, trunk, … Position ids go on from the trunk in
either branch. Everything but attention looks at single tokens, so it never meets padding.

Labeling, reference log-probabilities and every training lay their pairs out here. Where a probe
finds that a model must not read them so (``probe``), each response has a padded row of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from weakteach.models.pair_attention import PairLayout
from weakteach.models.resources import Attention
from weakteach.models.tokens import PairTokens


@dataclass(frozen=True)
class Batch:
    """What a model reads at once, and which of its answers count.

    ``inputs`` are the base model's arguments. Score number i is the log-probability of token
    ``targets[i]`` after flat place ``predictors[i]``; it belongs to both responses of pair
    ``pairs[i]`` where ``sides[i]`` is [1, 1], to one of them where it is [1, 0] or [0, 1], and is
    its token number ``columns[i]``. ``ends`` of shape [2, pairs] are the flat places where the
    sequences of first and second responses end.
    """

    inputs: dict[str, Any]
    predictors: torch.Tensor
    targets: torch.Tensor
    pairs: torch.Tensor
    sides: torch.Tensor
    columns: torch.Tensor
    ends: torch.Tensor


class _Scores:
    """Collects what is to be scored."""

    def __init__(self) -> None:
        self.predictors: list[int] = []
        self.targets: list[int] = []
        self.pairs: list[int] = []
        self.sides: list[tuple[int, int]] = []
        self.columns: list[int] = []
        self.ends: list[tuple[int, int]] = []

    def add(
        self,
        start: int,
        before: int,
        targets: list[int],
        pair: int,
        sides: tuple[int, int],
        column: int = 0,
    ) -> None:
        """Tokens that stand from place ``start`` on, the first of them after place ``before``, and
        are the response's from number ``column`` on; a first token that nothing stands before (-1)
        has no probability."""
        predictors = [before, *range(start, start + len(targets) - 1)][: len(targets)]
        skipped = int(before < 0 and bool(targets))
        self.predictors += predictors[skipped:]
        self.targets += targets[skipped:]
        self.pairs += [pair] * (len(targets) - skipped)
        self.sides += [sides] * (len(targets) - skipped)
        self.columns += range(column + skipped, column + len(targets))

    def batch(self, inputs: dict[str, Any], device: torch.device) -> Batch:
        def whole(column: list[int]) -> torch.Tensor:
            return torch.tensor(column, dtype=torch.long, device=device)

        sides = torch.tensor(self.sides, dtype=torch.double, device=device).reshape(-1, 2)
        ends = torch.tensor(self.ends, dtype=torch.long, device=device).reshape(-1, 2).T
        predictors, targets, pairs = map(whole, (self.predictors, self.targets, self.pairs))
        return Batch(inputs, predictors, targets, pairs, sides, whole(self.columns), ends)


def cut_by_tokens(pairs: Sequence[PairTokens], most: int, packed: bool) -> list[list[int]]:
    """Indices in batches of similar length, shortest first, each of at most ``most`` tokens as they
    are laid out, padding included, or of one pair."""
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
    return pair.total - branch_point(pair)


def lay_out(
    pairs: Sequence[PairTokens],
    device: torch.device,
    packed: bool,
    attention: Attention = "sdpa",
    pad: int | None = None,
) -> Batch:
    """In one row or in separate ones; tokens ``pad`` after the last other one are behind a
    sequence's end."""
    if packed:
        return packed_batch(pairs, device, attention, pad)
    return separate_batch(pairs, device, pad)


def _last(pair: PairTokens, response: list[int], pad: int | None) -> int:
    """The position where the sequence ends."""
    for place in range(len(response) - 1, -1, -1):
        if response[place] != pad:
            return len(pair.prompt) + place
    for place in range(len(pair.prompt) - 1, -1, -1):
        if pair.prompt[place] != pad:
            return place
    return 0


def branch_point(pair: PairTokens) -> int:
    """Tokens that the two responses have in common at the front."""
    both = zip(pair.response_1, pair.response_2, strict=False)
    return sum(1 for _ in takewhile(lambda two: two[0] == two[1], both))


def packed_batch(
    pairs: Sequence[PairTokens],
    device: torch.device,
    attention: Attention = "sdpa",
    pad: int | None = None,
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
        ends = []
        for branch, sides in zip(branches, ((1, 0), (0, 1)), strict=True):
            scores.add(len(ids), end - 1 if trunk else -1, branch, number, sides, shared)
            last = _last(pair, pair.response_1[:shared] + branch, pad)
            ends.append(last + start if last < len(trunk) else last - len(trunk) + len(ids))
            ids += branch
            positions += range(len(trunk), len(trunk) + len(branch))
        scores.ends.append((ends[0], ends[1]))
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


def separate_batch(
    pairs: Sequence[PairTokens], device: torch.device, pad: int | None = None
) -> Batch:
    """Each response in a padded row of its own, after its prompt: for any causal model."""
    longest = max(pair.longest for pair in pairs)
    ids: list[list[int]] = []
    scores = _Scores()
    for number, pair in enumerate(pairs):
        ends = []
        for side in range(_responses(pair)):
            response = (pair.response_1, pair.response_2)[side]
            first = len(ids) * longest
            start = first + len(pair.prompt)
            before = start - 1 if pair.prompt else -1
            scores.add(start, before, response, number, (1 - side, side))
            ends.append(first + _last(pair, response, pad))
            tokens = pair.prompt + response
            ids.append(tokens + [0] * (longest - len(tokens)))
        scores.ends.append((ends[0], ends[-1]))
    # Padding comes last, and causal attention never looks that way: no mask is needed.
    return scores.batch({"input_ids": torch.tensor(ids, device=device)}, device)
