"""The rules by which other tools let a model pass, beside which `gates.py` sets ours. They look at counts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]
ALPHA = 0.05


@dataclass(frozen=True)
class Seen:
    """What a peer's rule looks at: counts over all n items."""

    gained: Counts
    lost: Counts
    both: Counts
    n: int

    @property
    def ours(self) -> NDArray[np.float64]:
        """The candidate's measured accuracy."""
        return np.asarray((self.both + self.gained) / self.n)

    @property
    def theirs(self) -> NDArray[np.float64]:
        """The champion's."""
        return np.asarray((self.both + self.lost) / self.n)

    @property
    def unpaired_z(self) -> NDArray[np.float64]:
        """z of the difference as if measured on different items, as lm-eval's model_comparator has it."""
        variance = self.ours * (1 - self.ours) + self.theirs * (1 - self.theirs)
        return np.asarray((self.ours - self.theirs) / np.sqrt(variance / self.n))


Z = float(norm.ppf(1 - ALPHA))
TINY = 1e-9
"""Differences of shares are not exact: a drop of exactly 0.05 is a drop of 0.05."""
PEERS: Mapping[str, Callable[[Seen], Bools]] = {
    "point: mean >= champion": lambda seen: np.asarray(seen.gained >= seen.lost),
    "point: drop <= 0.05": lambda seen: np.asarray(seen.theirs - seen.ours <= 0.05 + TINY),
    "MetricThreshold(0.78)": lambda seen: np.asarray(seen.ours >= 0.78 - TINY),
    "MetricThreshold(0.78, min_absolute_change=0.01)": lambda seen: np.asarray(
        (seen.ours >= 0.78 - TINY) & (seen.ours - seen.theirs >= 0.01 - TINY)
    ),
    "unpaired z, not significantly worse": lambda seen: np.asarray(seen.unpaired_z > -Z),
    "unpaired z, significantly better": lambda seen: np.asarray(seen.unpaired_z > Z),
}
