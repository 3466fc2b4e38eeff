"""Split pairs into a labeled, an unlabeled and a test part that share no prompt."""

import hashlib
import math
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weakteach.preferences.pair import DataError

Numbers = np.ndarray[Any, Any]

# How many prompts are held as Python texts at a time.
HASHED_TOGETHER = 8192


def hold_out(pairs: pa.Table, count: int, name: str = "test") -> tuple[pa.Table, pa.Table]:
    """The part called ``name`` and the rest, each sorted by ``pair_id``, with no prompt in both.

    The part takes whole prompts until it holds ``count`` pairs, in an order that depends on the
    prompts alone, so that all seeds and fractions are judged on the same prompts.

    Raises DataError when the part or the rest would be empty.
    """
    setting = f"{name}_pairs={count}"
    prompt_of_row, digests = _prompts(pairs)
    order = sorted(range(len(digests)), key=digests.__getitem__)
    counted = f"{pairs.num_rows:,} pairs of {len(digests):,} prompts"
    is_held = _first_pairs(order, prompt_of_row, count)
    if not is_held.any():
        _refuse(name, counted, setting, f"Give more pairs, and {name}_pairs of at least 1")
    if is_held.all():
        _refuse("training", counted, setting, f"Lower {name}_pairs or give more pairs")
    return _part(pairs, is_held), _part(pairs, ~is_held)


def split_pairs(pairs: pa.Table, fraction: Fraction, seed: int) -> tuple[pa.Table, pa.Table]:
    """The labeled and the unlabeled part, each sorted by ``pair_id``, with no prompt in both.

    The labeled part takes whole prompts until it holds ``fraction`` of the pairs, in an order
    drawn from the seed: for one seed, a smaller labeled part lies within a larger one.

    Raises DataError when the fraction is not between 0 and 1 or a part would be empty.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"the fraction of labeled pairs is {fraction}; it must be above 0 and below 1"
        )
    prompt_of_row, digests = _prompts(pairs)
    seeded = [_seeded(seed, digest) for digest in digests]
    order = sorted(range(len(digests)), key=seeded.__getitem__)
    counted = f"{pairs.num_rows:,} pairs of {len(digests):,} prompts"
    is_labeled = _first_pairs(order, prompt_of_row, math.ceil(fraction * pairs.num_rows))
    if not is_labeled.any():
        _refuse("labeled", counted, f"{fraction=!s}", "Lower test_pairs or give more pairs")
    if is_labeled.all():
        _refuse("unlabeled", counted, f"{fraction=!s}", "Lower the fraction or give more prompts")
    return _part(pairs, is_labeled), _part(pairs, ~is_labeled)


def _prompts(pairs: pa.Table) -> tuple[Numbers, list[bytes]]:
    """The number of each row's prompt [rows], and the digest of each prompt, by that number."""
    # Large strings: the prompts of a million pairs can pass the 2 GiB that one string array holds.
    column = pairs.column("prompt").cast(pa.large_string()).combine_chunks()
    encoded = pc.call_function("dictionary_encode", [column])
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    digests = [
        hashlib.sha256(prompt.encode()).digest()
        for start in range(0, len(encoded.dictionary), HASHED_TOGETHER)
        for prompt in encoded.dictionary.slice(start, HASHED_TOGETHER).to_pylist()
    ]
    return encoded.indices.to_numpy(zero_copy_only=False), digests


def _seeded(seed: int, digest: bytes) -> bytes:
    return hashlib.sha256(f"seed {seed} ".encode() + digest).digest()


def _first_pairs(order: list[int], prompt_of_row: Numbers, target: int) -> Numbers:
    """A mask [rows] of the rows whose prompt is among the first ones in ``order``: as few as hold
    at least ``target`` pairs together."""
    held = np.cumsum(np.bincount(prompt_of_row, minlength=len(order))[order])
    count = int(np.searchsorted(held, target)) + 1 if target > 0 else 0
    is_first = np.zeros(len(order), dtype=bool)
    is_first[order[:count]] = True
    return is_first[prompt_of_row]


def _refuse(empty: str, counted: str, setting: str, remedy: str) -> NoReturn:
    raise DataError(
        f"the {empty} part would be empty: {counted} were split with {setting}. {remedy}; "
        "the pairs of one prompt always stay together."
    )


def _part(pairs: pa.Table, rows: Numbers) -> pa.Table:
    return pairs.filter(pa.array(rows)).sort_by("pair_id")
