"""How much each weak label counts: a calibrated probability, and the weights of CW-PO."""

from typing import Literal

import numpy as np
import pyarrow as pa

from weakteach.preferences.pair import DataError

# The four functions of the margin that CW-PO compares (arXiv 2603.04968; its own is the first).
Weighting = Literal["C1", "C2", "C3", "C4"]


def pair_weights(weighting: Weighting, margin: np.ndarray) -> np.ndarray:
    """Weights [pairs] of labels with these margins [pairs], where Δ = |margin|:

    C1: 2·(σ(Δ) - ½), which is the ``confidence`` of a label; C2: σ(Δ); C3: min(Δ, 1);
    C4: min(0.2·Δ, 1). C2 lies in [½, 1), the others in [0, 1]. A pair with margin 0 has weight ½
    under C2 and 0 under the others. Raises ValueError for margins that are not finite.
    """
    size = np.abs(np.asarray(margin, dtype=np.float64))
    if not np.isfinite(size).all():
        raise ValueError(f"No weight: {int((~np.isfinite(size)).sum())} margins are not finite")
    match weighting:
        case "C1":
            return np.tanh(size / 2)  # 2·(σ(Δ) - ½)
        case "C2":
            return (1 + np.tanh(size / 2)) / 2  # σ(Δ)
        case "C3":
            return np.minimum(size, 1)
        case "C4":
            return np.minimum(0.2 * size, 1)


def with_weight(labels: pa.Table, weighting: Weighting) -> pa.Table:
    """The labels with a last column ``weight``. Raises DataError for labels without margins."""
    weights = pair_weights(weighting, _margins(labels))
    return labels.append_column("weight", pa.array(weights, pa.float64()))


def with_probability(labels: pa.Table, temperature: float) -> pa.Table:
    """The labels with a last column ``probability`` in [½, 1): how likely it is that a human makes
    the same choice, given the margin and the temperature of the teacher's verdict. Raises DataError
    for labels without margins."""
    from weakteach.statistics.calibration import label_probability  # scipy: slow to import

    sure = label_probability(_margins(labels), temperature)
    return labels.append_column("probability", pa.array(sure, pa.float64()))


def _margins(labels: pa.Table) -> np.ndarray:
    if "margin" not in labels.column_names:
        raise DataError("These labels are choices alone: only labels by reward have margins")
    return labels["margin"].to_numpy()
