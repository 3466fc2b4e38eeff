"""Pairs in one row: where their responses part, and attention that a GPU would refuse."""

from functools import partial
from itertools import takewhile

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from weakteach.models import pair_attention, tokens
from weakteach.models.pair_attention import PairLayout
from weakteach.models.pair_layout import cut_by_tokens, lay_out
from weakteach.models.spec import ModelError
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


@pytest.mark.parametrize("width", [8, 16])
def test_heads_that_flex_attention_refuses_on_a_gpu_are_told_in_one_sentence(width, monkeypatch):
    """Tensors without data stand for those of a GPU."""
    monkeypatch.setattr(pair_attention, "_flex", lambda device: lambda query, *_, **__: query)
    with torch.device("meta"):
        query = torch.zeros(1, 4, 10, width)
        row, ends = torch.zeros(1, 10, dtype=torch.long), torch.zeros(1, 1, 1, dtype=torch.long)
    layout = PairLayout("flex", row, row[0], row, ends, ends, block_masks={None: None})
    attended = partial(pair_attention.pair_attention, None, query, query, query, None)
    if width == 16:
        assert attended(pair_layout=layout)[0].shape == (1, 10, 4, 16)
        return
    with pytest.raises(ModelError, match=r"16 or more on a GPU, and those .* are 8 wide: leave"):
        attended(pair_layout=layout)


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
