"""The probability of a label from the likelihoods of a closed set, for certificates and for answers in service."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEMPERATURES = np.geomspace(0.05, 20, 241)
"""Source: Guo et al. (2017), On calibration of modern neural networks, arXiv 1706.04599."""


def label_probability(logs: Sequence[float], place: int, temperature: float) -> float:
    """Softmax over the set at the label's place, 0-1.

    Args:
        logs: One number per label, such as its log-likelihood; all finite.
        temperature: What they are divided by.

    >>> round(label_probability([0.0, -1.0], 0, 0.5), 4)
    0.8808
    """
    scaled = np.asarray(logs, np.float64) / temperature
    grown = np.exp(scaled - scaled.max())
    return float((grown / grown.sum())[place])


def fit_temperature(logs: NDArray[np.float64], right: NDArray[np.int64]) -> float:
    """The one of `TEMPERATURES` that makes the right labels likeliest.

    Args:
        logs: As above, one row per answer.
        right: Place of each row's right label.
    """
    logs = logs - logs.max(axis=1, keepdims=True)
    nats = [
        float((np.log(np.exp(logs / each).sum(axis=1)) - logs[np.arange(len(right)), right] / each).mean())
        for each in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(nats))])


def all_finite(logs: Sequence[float] | None) -> bool:
    """Whether there are likelihoods and each is a number: nothing is sure of the answer of a model that overflows."""
    return logs is not None and bool(np.isfinite(logs).all())
