"""Intervals of shares against their closed form."""

import numpy as np
import pytest

from weakteach.statistics.estimate import wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (6, 10), (10, 10), (255, 400)])
def test_wilson_is_the_closed_form(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    expected = (max(0, center - half), min(1, center + half))
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_share_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="No share"):
        wilson_interval(successes, n)
