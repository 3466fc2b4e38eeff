"""Where the responses of a pair part, on which its layout rests."""

from itertools import takewhile

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from weakteach.models import tokens
from weakteach.models.pair_layout import cut_by_tokens, lay_out
from weakteach.models.tokens import BLOCK, PairTokens

# Long runs of few ids, so that many begin alike, also over the ends of blocks.
IDS = st.lists(st.integers(3, 5), max_size=6)
SHARED = st.integers(0, 2 * BLOCK + 3).map(lambda length: [4, 3, 5] * (length // 3) + [3])


@given(shared=SHARED | IDS, first=IDS, second=IDS)
@example(shared=[3] * BLOCK, first=[], second=[])
@example(shared=[3] * BLOCK, first=[], second=[4])
@example(shared=[3] * (BLOCK - 1), first=[4], second=[5])
@example(shared=[], first=[], second=[3])
def test_responses_part_at_the_first_token_that_differs(shared, first, second):
    pair = PairTokens([1], [*shared, *first], [*shared, *second])
    both = zip(pair.response_1, pair.response_2, strict=False)
    assert pair.shared == sum(1 for _ in takewhile(lambda two: two[0] == two[1], both))


def test_it_is_looked_for_once_for_all_updates(monkeypatch):
    looked = []

    def count(one, other):
        looked.append(1)
        return 1

    monkeypatch.setattr(tokens, "_common_prefix", count)
    pairs = [PairTokens([7], [5, n, 2], [5, n, 4, 2]) for n in (3, 4)]
    for _ in range(2):
        cut_by_tokens(pairs, 100, packed=True)
        batch = lay_out(pairs, torch.device("cpu"), packed=True)
    assert len(looked) == len(pairs)
    assert batch.inputs["input_ids"].numel() == 2 * (1 + 3 + 3)
