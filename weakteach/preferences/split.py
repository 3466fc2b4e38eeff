"""Pairs into a labeled, an unlabeled and a test part, no prompt in two of them."""

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weakteach.preferences.pair import DataError


@dataclass(frozen=True)
class Parts:
    """The three parts of a split, each sorted by ``pair_id``."""

    labeled: pa.Table
    unlabeled: pa.Table
    test: pa.Table


def split_pairs(pairs: pa.Table, fraction: Fraction, seed: int, test_pairs: int) -> Parts:
    """Every pair in one part, every prompt in one part, whatever the order of the rows.

    The test part takes whole prompts until it holds ``test_pairs`` pairs, in an order drawn from
    the prompts alone: all seeds and fractions are judged on the same prompts. Of the rest, the
    labeled part takes whole prompts up to ``fraction`` of the pairs, in an order drawn from the
    seed: for one seed, a smaller labeled part lies within a larger one.

    Raises DataError when the fraction is not between 0 and 1 or a part would be empty.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"the fraction of labeled pairs is {fraction}; it must be above 0 and below 1"
        )
    prompt_of_row, digests = _prompts(pairs)
    pairs_of_prompt = np.bincount(prompt_of_row, minlength=len(digests))

    by_prompt = sorted(range(len(digests)), key=digests.__getitem__)
    test, rest = _take(by_prompt, pairs_of_prompt, test_pairs)

    seeded = {prompt: _seeded(seed, digests[prompt]) for prompt in rest}
    by_seed = sorted(rest, key=seeded.__getitem__)
    target = math.ceil(fraction * int(pairs_of_prompt[rest].sum()))
    labeled, unlabeled = _take(by_seed, pairs_of_prompt, target)

    counted = f"{pairs.num_rows:,} pairs of {len(digests):,} prompts"
    _require_parts(labeled, unlabeled, test, counted, f"test_pairs={test_pairs}, {fraction=!s}")
    part_of_prompt = np.empty(len(digests), dtype=np.int8)
    for part, prompts in enumerate((labeled, unlabeled, test)):
        part_of_prompt[prompts] = part
    part_of_row = part_of_prompt[prompt_of_row]
    return Parts(*(_part(pairs, part_of_row == part) for part in range(3)))


def _prompts(pairs: pa.Table) -> tuple["np.ndarray[Any, Any]", list[bytes]]:
    """The number of each row's prompt, and a digest of each prompt."""
    # Large strings: the prompts of a million pairs can pass the 2 GiB that one string array holds.
    column = pairs.column("prompt").cast(pa.large_string()).combine_chunks()
    encoded = pc.call_function("dictionary_encode", [column])
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    digests = [hashlib.sha256(p.encode()).digest() for p in encoded.dictionary.to_pylist()]
    return encoded.indices.to_numpy(zero_copy_only=False), digests


def _seeded(seed: int, digest: bytes) -> bytes:
    return hashlib.sha256(f"seed {seed} ".encode() + digest).digest()


def _take(
    order: list[int], pairs_of_prompt: "np.ndarray[Any, Any]", target: int
) -> tuple[list[int], list[int]]:
    """The first prompts that hold at least ``target`` pairs together, and the others."""
    held = np.cumsum(pairs_of_prompt[order])
    count = int(np.searchsorted(held, target)) + 1 if target > 0 else 0
    return order[:count], order[count:]


def _require_parts(
    labeled: list[int], unlabeled: list[int], test: list[int], counted: str, settings: str
) -> None:
    if not test:
        empty, remedy = "test", "Give more pairs, and test_pairs of at least 1"
    elif not labeled:
        empty, remedy = "labeled and the unlabeled", "Lower test_pairs or give more pairs"
    elif not unlabeled:
        empty, remedy = "unlabeled", "Lower the fraction or test_pairs, or give more prompts"
    else:
        return
    raise DataError(
        f"the {empty} part would be empty: {counted} were split with {settings}. {remedy}; "
        "the pairs of one prompt always stay together."
    )


def _part(pairs: pa.Table, rows: "np.ndarray[Any, Any]") -> pa.Table:
    return pairs.filter(pa.array(rows)).sort_by("pair_id")
