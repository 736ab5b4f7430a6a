"""Tails of the binomial distribution are those of scipy.stats, to the last bit."""

import numpy as np
import pytest
from scipy.stats import binom

from tasks.assess.binomial import exceeded_by, exceeds


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.6, 0.9, 0.98, 0.999, 1.0])
def test_both_tails_equal_those_of_scipy_stats(share: float) -> None:
    n = np.arange(1, 3001)
    for alpha in (0.005, 0.05, 0.2):
        k = exceeded_by(alpha, n, share)
        assert np.array_equal(k, binom.isf(alpha, n, share))
        for other in (share, min(1.0, share + 0.05)):
            assert np.array_equal(exceeds(k, n, other), binom.sf(k, n, other))
    assert exceeds([-3.0, 0.0], 0, share).tolist() == [1.0, 0.0]
