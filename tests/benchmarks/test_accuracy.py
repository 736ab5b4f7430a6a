"""Precision and recall of the benchmarks on cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy import first_of_each, pair_accuracy, planted_share, removal_accuracy, share_of

TRUTH = np.array([0, 0, 0, 3, 3, 5])
"""Four pairs: three of the first cluster, one of the second; three tickets should go."""


def test_the_truth_itself_is_right_whatever_its_clusters_are_called() -> None:
    assert pair_accuracy(TRUTH, TRUTH) == (1.0, 1.0)
    assert pair_accuracy(np.array([7, 7, 7, 2, 2, 0]), TRUTH) == (1.0, 1.0)
    assert removal_accuracy(first_of_each(TRUTH), TRUTH) == (1.0, 1.0)


def test_a_cluster_cut_in_two_costs_recall_alone() -> None:
    assert pair_accuracy(np.array([0, 0, 2, 3, 3, 5]), TRUTH) == (1.0, 0.5)


def test_two_clusters_joined_cost_precision_alone() -> None:
    # Ten pairs of five tickets in one cluster, four of them right.
    assert pair_accuracy(np.array([0, 0, 0, 0, 0, 5]), TRUTH) == (0.4, 1.0)


def test_joining_nothing_is_precise_and_finds_nothing() -> None:
    assert pair_accuracy(np.arange(6), TRUTH) == (1.0, 0.0)


def test_a_ticket_that_goes_with_all_its_like_was_removed_wrongly() -> None:
    keep = np.array([True, False, False, False, False, True])
    # Four go; the cluster of 3 and 4 keeps nobody, so one of its two went wrongly.
    assert removal_accuracy(keep, TRUTH) == (pytest.approx(3 / 4), 1.0)


def test_a_duplicate_that_stays_costs_recall_of_removals() -> None:
    assert removal_accuracy(np.array([True, True, False, True, False, True]), TRUTH) == (1.0, pytest.approx(2 / 3))


def test_a_unique_ticket_that_goes_costs_precision_of_removals() -> None:
    assert removal_accuracy(np.array([True, False, False, True, False, False]), TRUTH) == (pytest.approx(3 / 4), 1.0)


def test_one_ticket_of_each_cluster_comes_first() -> None:
    assert first_of_each(np.array([4, 4, 1, 4, 1])).tolist() == [True, False, True, False, False]


def test_flags_are_judged_ticket_by_ticket() -> None:
    assert share_of(np.array([True, True, False, False]), np.array([True, False, True, False])) == (0.5, 0.5)


def test_planted_copies_count_inside_their_band_and_beside_their_original() -> None:
    original, kind = np.array([0, 0, 0, 1, 1]), np.array(["original", "near", "near", "near", "original"])
    jaccard = np.array([1.0, 0.75, 0.72, 0.9, 1.0])
    clusters = np.array([9, 9, 2, 3, 3])
    assert planted_share(clusters, original, kind, jaccard, 0.7, 0.8) == 0.5
    assert planted_share(clusters, original, kind, jaccard, 0.8, 1.0) == 1.0
    assert np.isnan(planted_share(clusters, original, kind, jaccard, 0.1, 0.2))
