"""How right an engine's answer is, beside the oracle's. It knows nothing of how either came about.

Pairs: of the pairs of tickets in one cluster, how many the oracle has too (precision) and how many of the oracle's are
found (recall). Removals: of the tickets an engine would remove, how many have their like among those it keeps. Called
by `benchmarks/dedup.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Share(NamedTuple):
    """Precision and recall, 0-1."""

    precision: float
    recall: float


def pair_accuracy(clusters: np.ndarray, truth: np.ndarray) -> Share:
    """Of pairs in one cluster. An engine that joins nothing has precision 1."""
    both = _n_pairs(np.stack([clusters, truth], axis=1))
    return Share(_over(both, _n_pairs(clusters)), _over(both, _n_pairs(truth)))


def removal_accuracy(keep: np.ndarray, truth: np.ndarray) -> Share:
    """Of removed tickets. One goes rightly when its true cluster keeps another; a cluster without any lost one."""
    n_removed = int((~keep).sum())
    n_lost = len(np.unique(truth)) - len(np.unique(truth[keep]))
    n_right = n_removed - n_lost
    return Share(_over(n_right, n_removed), _over(n_right, len(truth) - len(np.unique(truth))))


def share_of(chosen: np.ndarray, right: np.ndarray) -> Share:
    """Of a yes or no for each ticket."""
    both = int((chosen & right).sum())
    return Share(_over(both, int(chosen.sum())), _over(both, int(right.sum())))


def first_of_each(clusters: np.ndarray) -> np.ndarray:
    """True for one ticket of each cluster: what would be kept."""
    keep = np.zeros(len(clusters), dtype=bool)
    keep[np.unique(clusters, return_index=True)[1]] = True
    return keep


def planted_share(
    clusters: np.ndarray, original: np.ndarray, kind: np.ndarray, jaccard: np.ndarray, low: float, high: float
) -> float:
    """Of the planted near copies with low <= J < high, the share that is in its original's cluster."""
    place = np.full(int(original.max()) + 1, -1)
    is_original = kind == "original"
    place[original[is_original]] = np.flatnonzero(is_original)
    chosen = np.flatnonzero((kind == "near") & (jaccard >= low) & (jaccard < high) & (place[original] >= 0))
    if not len(chosen):
        return float("nan")
    return float((clusters[chosen] == clusters[place[original[chosen]]]).mean())


def _n_pairs(labels: np.ndarray) -> int:
    counts = np.unique(labels, axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _over(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
