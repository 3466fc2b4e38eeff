"""What a table of verdicts says: wins, ties, flips, position and length bias, consistency."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class VerdictSummary:
    """What the verdicts on contests come to, seen from the side of response 1. A share is None if
    no verdict counts for it.

    The outcome of a contest is the sign of the sum of its verdicts (+1 for response 1, -1 for
    response 2) over the repeats that the judge answered in both orders; a contest without such a
    repeat is ``missing``. ``win_rate`` is (wins + ties/2) over the contests that are not missing.
    ``missing_verdicts`` counts single answers.

    All other fields leave out contests between equal texts. ``repeats_compared`` repeats were
    answered in both orders; in ``flips`` of them the judge names a different response in each
    order. Of the verdicts that name a response, ``first_shown`` is the share for the response shown
    first. ``longer_compared`` of these verdicts are on responses of different length; ``longer`` is
    the share of them for the one with more characters. ``length_correlation`` is Spearman's,
    between the difference of lengths and the mean verdict of a contest. ``consistency`` is the mean
    share of the most frequent verdict among the repeats of a contest in one order, where two or
    more were answered. With n repeats a judge that tosses a coin reaches more than ½: 0.62 with n =
    10.
    """

    contests: int
    wins: int
    losses: int
    ties: int
    missing: int
    missing_verdicts: int
    win_rate: float | None
    flips: int
    repeats_compared: int
    first_shown: float | None
    longer: float | None
    longer_compared: int
    length_correlation: float | None
    consistency: float | None

    @property
    def facts(self) -> dict[str, Any]:
        return asdict(self)


def contest_outcomes(verdicts: pa.Table) -> dict[str, int | None]:
    """The outcome of each contest by its id: 1 or -1 if response 1 or 2 won, 0 for a tie, None if
    it is missing."""
    ids, signs = _signs(verdicts)
    return {
        key: int(outcome) if np.isfinite(outcome) else None
        for key, outcome in zip(ids, _outcomes(signs), strict=True)
    }


def contest_consistencies(verdicts: pa.Table) -> dict[str, float | None]:
    """The consistency of each contest by its id: the share of its most frequent verdict among the
    repeats of one order, as the mean over both orders. An order that was answered less than twice
    does not count; the value is None if neither counts. Contests between equal texts are left out,
    since no judge has seen them: all their verdicts are ties without a reply or a score."""
    ids, signs = _signs(verdicts)
    rows = verdicts.select(["id", "verdict", "reply", "score_1"]).to_pylist()
    seen = {
        row["id"]
        for row in rows
        if row["verdict"] is None or row["reply"] is not None or row["score_1"] is not None
    }
    return {
        key: _consistency(one[None]) for key, one in zip(ids, signs, strict=True) if key in seen
    }


def summarize_verdicts(contests: pa.Table, verdicts: pa.Table) -> VerdictSummary:
    """Summarize the verdicts (VERDICT_SCHEMA) on contests (``id, response_1, response_2``).

    Raises ValueError unless the verdicts are on just these contests, every repeat in both orders.
    """
    contests = contests.sort_by("id")
    ids, signs = _signs(verdicts)
    if ids != contests["id"].to_pylist():
        raise ValueError("The verdicts are of other contests")
    texts = [contests[name].to_pylist() for name in ("response_1", "response_2")]
    different = np.array([a.strip() != b.strip() for a, b in zip(*texts, strict=True)], dtype=bool)
    outcome = _outcomes(signs)
    wins, losses, ties = (int((outcome == value).sum()) for value in (1, -1, 0))
    decided = wins + losses + ties

    real = signs[different]
    products = real[:, :, 0] * real[:, :, 1]
    sided = np.isfinite(real) & (real != 0)
    shown_first = real * np.array([1, -1])
    length = np.array([[len(text) for text in side] for side in texts]).reshape(2, -1)
    longer = (length[0] - length[1])[different]
    unequal = sided & (longer != 0)[:, None, None]
    for_longer = real * np.sign(longer)[:, None, None]
    return VerdictSummary(
        contests=len(ids),
        wins=wins,
        losses=losses,
        ties=ties,
        missing=len(ids) - decided,
        missing_verdicts=int(np.isnan(signs).sum()),
        win_rate=(wins + ties / 2) / decided if decided else None,
        flips=int((products == -1).sum()),
        repeats_compared=int(np.isfinite(products).sum()),
        first_shown=_share(shown_first[sided] > 0),
        longer=_share(for_longer[unequal] > 0),
        longer_compared=int(unequal.sum()),
        length_correlation=_correlation(longer, real),
        consistency=_consistency(real),
    )


def _signs(verdicts: pa.Table) -> tuple[list[str], np.ndarray]:
    """The sorted ids of the contests, and their verdicts as signs of shape [contests, repeats, 2
    orders]: 1 for response 1, -1 for response 2, 0 for a tie, NaN if missing."""
    ordered = verdicts.sort_by([(name, "ascending") for name in ("id", "repeat", "order")])
    ids = sorted(set(ordered["id"].to_pylist()))
    if not ids or len(ordered) % (2 * len(ids)):
        raise ValueError(f"{len(ordered)} verdicts on {len(ids)} contests: not all in both orders")
    signs = {1: 1.0, 2: -1.0, 0: 0.0, None: np.nan}
    of_contest = np.array(ordered["id"].to_pylist()).reshape(len(ids), -1)
    orders = ordered["order"].to_numpy().reshape(-1, 2)
    if (of_contest != of_contest[:, :1]).any() or (orders[:, 0] == orders[:, 1]).any():
        raise ValueError("Some contests have more verdicts than others, or not in both orders")
    values = np.array([signs[verdict] for verdict in ordered["verdict"].to_pylist()])
    return ids, values.reshape(len(ids), -1, 2)


def _outcomes(signs: np.ndarray) -> np.ndarray:
    """The outcome of each contest, 1, -1 or 0; NaN if no repeat was answered in both orders."""
    repeats = signs.sum(axis=2)
    outcome = np.sign(np.nansum(repeats, axis=1))
    return np.where(np.isfinite(repeats).any(axis=1), outcome, np.nan)


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _correlation(longer: np.ndarray, signs: np.ndarray) -> float | None:
    from scipy.stats import spearmanr  # slow to import, and not needed to plan

    answered = np.isfinite(signs)
    known = answered.any(axis=(1, 2))
    counts = answered[known].sum(axis=(1, 2))
    means = np.nansum(signs[known], axis=(1, 2)) / counts
    if len(means) < 3 or not np.ptp(means) or not np.ptp(longer[known]):
        return None
    return float(spearmanr(longer[known], means).statistic)


def _consistency(signs: np.ndarray) -> float | None:
    counts = np.stack([(signs == value).sum(axis=1) for value in (1, -1, 0)])
    answered = counts.sum(axis=0)
    repeated = answered >= 2
    if not repeated.any():
        return None
    return float((counts.max(axis=0)[repeated] / answered[repeated]).mean())
