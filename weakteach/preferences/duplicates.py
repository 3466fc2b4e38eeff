"""Find pairs that say nearly the same: a teacher must not be tested on what it saw in training.

Texts are compared as their words in lower case, without punctuation. Two pairs are near-duplicates
if the sets of 5-character pieces of their whole text (prompt and both responses, in either order)
have a Jaccard similarity of at least NEAR. The size of the pieces is that of Leskovec, Rajaraman &
Ullman (Mining of Massive Datasets, §3.2) for short documents. No sketch is needed, as the pairs
with human choices are few: a million others are compared with them chunk by chunk. Similarities
are exact up to collisions of a hash into 2¹⁸ columns, which add about 4 shared pieces to two texts
of 1,000.

Of 1,497 pairs of HH-RLHF (harmless), 2 have a similarity above 0.7 with another pair and 14 above
0.5. Of as many pairs of the embedded world, whose sentences all come from one grammar, none and 84
do.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.sparse.csgraph import connected_components

NEAR = 0.7
PIECE = 5
COLUMNS = 2**18
COMPARED_TOGETHER = 1024

# How a pair was recognized, the surest way first; "" if it was not.
SAME_PAIR, SAME_PROMPT, NEAR_DUPLICATE, UNSEEN = "same pair", "same prompt", "near-duplicate", ""


def normalized(text: str) -> str:
    """The words of a text in lower case with single spaces; the text itself if it has no word."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words) or text


def groups(pairs: pa.Table) -> np.ndarray:
    """The group number [pairs] of each pair, from 0. Two pairs share a group if they have the same
    prompt or are near-duplicates, or if a chain of such pairs connects them. Reads
    ``prompt, response_1, response_2``."""
    _, prompt = np.unique([normalized(p) for p in pairs["prompt"].to_pylist()], return_inverse=True)
    pieces = _pieces(pairs)
    rows, columns = [np.arange(len(pairs))], [len(pairs) + prompt]  # each pair to its prompt
    for start in range(0, len(pairs), COMPARED_TOGETHER):
        near = _near(pieces[start : start + COMPARED_TOGETHER], pieces)
        rows.append(near.row + start)
        columns.append(near.col)
    row, column = np.concatenate(rows), np.concatenate(columns)
    size = len(pairs) + (prompt.max() + 1 if len(pairs) else 0)
    graph = sparse.coo_matrix((np.ones(len(row)), (row, column)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][: len(pairs)]
    return np.unique(component, return_inverse=True)[1]


def prompt_numbers(pairs: pa.Table) -> np.ndarray:
    """A number of 64 bits for each pair [pairs]: equal for pairs with the same normalized prompt,
    also in different tables, and different for others unless hashes collide. Reads ``prompt``."""
    digests = (
        hashlib.blake2b(normalized(prompt).encode(), digest_size=8).digest()
        for prompt in pairs["prompt"].to_pylist()
    )
    return np.array([int.from_bytes(one, "big", signed=True) for one in digests], dtype=np.int64)


def recognizer(trained: pa.Table) -> Callable[[pa.Table], np.ndarray]:
    """A function that takes a table of pairs and tells of each pair [pairs] how a teacher that was
    trained on the pairs ``trained`` knows it: SAME_PAIR (equal normalized texts, responses in
    either order), SAME_PROMPT, NEAR_DUPLICATE or UNSEEN. Reads ``prompt, response_1, response_2``
    of both tables."""
    whole, prompts = set(_wholes(trained)), {normalized(p) for p in trained["prompt"].to_pylist()}
    pieces = _pieces(trained)

    def how(text: str, prompt: str, is_near: bool) -> str:
        if text in whole:
            return SAME_PAIR
        if normalized(prompt) in prompts:
            return SAME_PROMPT
        return NEAR_DUPLICATE if is_near else UNSEEN

    def recognize(pairs: pa.Table) -> np.ndarray:
        near = np.zeros(len(pairs), dtype=bool)
        for start in range(0, len(pairs), COMPARED_TOGETHER):
            chunk = pairs.slice(start, COMPARED_TOGETHER)
            near[start + _near(_pieces(chunk), pieces).row] = True
        texts = zip(_wholes(pairs), pairs["prompt"].to_pylist(), near, strict=True)
        return np.array([how(*one) for one in texts], dtype=object)

    return recognize


def _wholes(pairs: pa.Table) -> list[str]:
    """The normalized whole text of each pair: its prompt and its two responses, these sorted."""
    columns = [
        [normalized(text) for text in pairs[name].to_pylist()]
        for name in ("prompt", "response_1", "response_2")
    ]
    return ["\n".join((p, *sorted(both))) for p, *both in zip(*columns, strict=True)]


def _pieces(pairs: pa.Table) -> sparse.csr_matrix:
    """A matrix [pairs, COLUMNS] with 1 in the columns of each pair's pieces."""
    from sklearn.feature_extraction.text import HashingVectorizer  # slow to import

    vectorizer = HashingVectorizer(
        analyzer="char", ngram_range=(PIECE, PIECE), n_features=COLUMNS, lowercase=False,
        binary=True, norm=None, alternate_sign=False, dtype=np.float32,
    )  # fmt: skip
    return vectorizer.transform(_wholes(pairs)) if len(pairs) else sparse.csr_matrix((0, COLUMNS))


def _near(some: sparse.csr_matrix, others: sparse.csr_matrix) -> sparse.coo_matrix:
    """The number of shared pieces [rows of ``some``, rows of ``others``], held only where the
    Jaccard similarity is at least NEAR."""
    shared = (some @ others.T).tocoo()
    sizes, other_sizes = (np.asarray(m.sum(axis=1)).ravel() for m in (some, others))
    joint = sizes[shared.row] + other_sizes[shared.col] - shared.data
    kept = shared.data >= NEAR * joint
    return sparse.coo_matrix(
        (shared.data[kept], (shared.row[kept], shared.col[kept])), shape=shared.shape
    )
