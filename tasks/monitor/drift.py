"""Whether new tickets have drifted: distances between two windows of tickets, compared with chance.

Three kinds: the mix of routing labels and the words that tickets use (Jensen-Shannon, `scipy.spatial.distance`), and
the bodies' lengths (Kolmogorov-Smirnov, `scipy.stats`). A permutation test separates a distance from chance; it
permutes tickets, not words. `tasks/monitor/arrivals.py` makes the windows. `tasks/monitor/label_sources.py` measures
the mix of single columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.schedule import DriftSpec, Shift

Counts = NDArray[np.float64]
Kind = Literal["routing", "length", "vocabulary"]
N_WORDS = 300
"""Number of words to compare: those in the most tickets of both windows together."""
MIN_TICKETS = 20
"""Drift is not measured in a smaller window."""


@dataclass(frozen=True)
class Window:
    """Tickets, in any order."""

    routing: tuple[str, ...]
    texts: tuple[str, ...]
    """Subject and body, redacted."""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Window:
        """The window of these ticket rows."""
        found = list(rows)
        return cls(
            routing=tuple(f"{row['category']} | {row['priority']}" for row in found),
            texts=tuple(f"{row['subject'] or ''}\n{row['body'] or ''}" for row in found),
        )


def measure_drift(current: Window, reference: Window, spec: DriftSpec) -> tuple[Shift, ...]:
    """One shift per kind; none when a window has fewer than `MIN_TICKETS` tickets.

    >>> many = Window(("a | low",) * 60, ("one two three",) * 60)
    >>> [shift.drifted for shift in measure_drift(many, many, DriftSpec())]
    [False, False, False]
    """
    if min(len(current.texts), len(reference.texts)) < MIN_TICKETS:
        return ()
    distances: dict[Kind, tuple[float, float]] = {
        "routing": mix_distance(current.routing, reference.routing, spec),
        "length": _lengths(current.texts, reference.texts),
        "vocabulary": _permuted(_words(current.texts + reference.texts), len(current.texts), spec),
    }
    limits: dict[Kind, float] = {"routing": spec.routing, "length": spec.length, "vocabulary": spec.vocabulary}
    return tuple(
        Shift(
            kind=kind,
            distance=round(distance, 6),
            limit=limits[kind],
            p_chance=round(p_chance, 6),
            drifted=distance >= limits[kind] and p_chance <= spec.significance / len(distances),
        )
        for kind, (distance, p_chance) in distances.items()
    )


def mix_distance(current: Sequence[str], reference: Sequence[str], spec: DriftSpec) -> tuple[float, float]:
    """Distance between the mixes of labels of two groups of tickets, and its permutation p-value.

    A permutation of tickets that each have one label draws the first group's counts from both groups together, without
    returning them: a multivariate hypergeometric distribution. To draw from it takes no longer for more tickets.

    >>> mix_distance(["a", "b"] * 50, ["a", "b"] * 500, DriftSpec())
    (0.0, 1.0)
    """
    labels, places = np.unique([*current, *reference], return_inverse=True)
    total = np.bincount(places, minlength=len(labels))
    own = np.bincount(places[: len(current)], minlength=len(labels))
    drawn = np.random.default_rng(spec.seed).multivariate_hypergeometric(
        total, len(current), size=_n_permutations(spec), method="marginals"
    )
    return _chance(np.vstack([own[None], drawn]).astype(np.float64), total.astype(np.float64))


def _lengths(current: Sequence[str], reference: Sequence[str]) -> tuple[float, float]:
    from scipy.stats import ks_2samp

    found = ks_2samp([len(text) for text in current], [len(text) for text in reference])
    return float(found.statistic), float(found.pvalue)


def _words(texts: Sequence[str]) -> Counts:
    """Ticket x word matrix, 1 where the ticket uses the word."""
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        table = CountVectorizer(binary=True, max_features=N_WORDS).fit_transform(texts)
    except ValueError:  # no text has a word
        return np.ones((len(texts), 1))
    return np.asarray(table.toarray(), np.float64)


def _permuted(table: Counts, n_current: int, spec: DriftSpec) -> tuple[float, float]:
    """Distance between the column sums of the first `n_current` rows and of the rest, and its permutation p-value."""
    rng = np.random.default_rng(spec.seed)
    chosen = np.zeros((_n_permutations(spec) + 1, table.shape[0]))
    chosen[0, :n_current] = 1
    for row in chosen[1:]:
        row[rng.permutation(table.shape[0])[:n_current]] = 1
    return _chance(chosen @ table, table.sum(axis=0))


def _n_permutations(spec: DriftSpec) -> int:
    return 10 * math.ceil(3 / spec.significance)


def _chance(current: Counts, total: Counts) -> tuple[float, float]:
    """Distance between the first row of counts and the rest of the total, and its p-value: the others are permutations.

    p = (1 + permutations at least as far) / (1 + permutations).
    Source: Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    distances = _jensen_shannon(current, total - current)
    as_far = int(np.count_nonzero(distances[1:] >= distances[0] - 1e-12))
    return float(distances[0]), (1 + as_far) / len(distances)


def _jensen_shannon(current: Counts, reference: Counts) -> Counts:
    from scipy.spatial.distance import jensenshannon

    n_current, n_reference = current.sum(axis=1), reference.sum(axis=1)
    both = (n_current > 0) & (n_reference > 0)
    found = np.where(n_current + n_reference > 0, 1.0, 0.0)  # the largest distance where one side is empty
    found[both] = np.nan_to_num(jensenshannon(current[both], reference[both], axis=1, base=2), nan=0.0)
    return found
