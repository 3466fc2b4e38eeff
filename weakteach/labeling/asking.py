"""Which pairs humans should label next: those in doubt, no two of them about the same thing."""

import numpy as np
from scipy import sparse, special, stats

# Diverse pairs are chosen among this many pairs in doubt for each pair that is asked for.
SHORTLIST = 4


def doubt(margins: np.ndarray, temperature: float) -> np.ndarray:
    """How much each pair is in need of a human label, in [0, 1] [pairs]. ``margins`` [teachers,
    pairs] are those of teachers that differ in their seed.

    It is the mean of two ranks: of uncertainty, the entropy of the mean probability under the
    temperature, and of disagreement, the mutual information between the choice and the teacher
    (Houlsby et al. 2011). Entropy alone also asks for pairs on which humans themselves differ. With
    one teacher there is no disagreement, and uncertainty alone counts. Raises ValueError if there
    is no teacher or no pair.
    """
    margins = np.atleast_2d(np.asarray(margins, dtype=np.float64))
    if not margins.size:
        raise ValueError(f"No doubt about margins of shape {margins.shape}")
    probability = special.expit(margins / temperature)
    uncertain = _entropy(probability.mean(axis=0))
    ranks = [stats.rankdata(uncertain.round(12))]
    if len(margins) > 1:
        differ = uncertain - _entropy(probability).mean(axis=0)
        ranks.append(stats.rankdata(differ.round(12)))
    return np.mean(ranks, axis=0) / margins.shape[1]


def shortlist(score: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """The rows with the SHORTLIST · ``count`` largest scores, the largest first. Among equal
    scores, the smaller id goes first."""
    order = np.lexsort((ids, -score))
    return order[: SHORTLIST * count]


def spread_out(prompts: list[str], count: int) -> list[int]:
    """Indices of ``count`` prompts (all, if there are fewer) that lie far apart, in the order in
    which they were chosen: the first prompt, then each time the one farthest from all chosen before
    (Gonzalez 1985). Distances are 1 minus the cosine of TF-IDF vectors of words and pairs of words;
    equal prompts have distance 0. Among prompts equally far away, the earlier is chosen."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    if not prompts or count < 1:
        return []
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|\W")
    vectors = vectorizer.fit_transform(prompts)
    chosen = [0]
    nearest = _distance(vectors, 0)
    while len(chosen) < min(count, len(prompts)):
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _distance(vectors, chosen[-1]))
    return chosen


def _distance(vectors: sparse.csr_matrix, row: int) -> np.ndarray:
    return (1 - (vectors @ vectors[row].T).toarray().ravel()).round(12)


def _entropy(probability: np.ndarray) -> np.ndarray:
    """The entropy, in bits, of choices between two, one of which has this probability."""
    return (special.entr(probability) + special.entr(1 - probability)) / np.log(2)
