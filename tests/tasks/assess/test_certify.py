"""A certified threshold keeps its target as often as it says, for tickets and for clusters, or says what is missing."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from tasks.assess.certify import (
    Answered,
    Certificate,
    certify,
    cluster_p_value,
    cluster_wins,
    order_of_tests,
    tickets_needed,
)

TARGET = 0.95
N_DRAWS = 150


def draw(n: int, rng: np.random.Generator) -> Answered:
    """Tickets whose accuracy falls from 1.0 at a confidence of 1 to 0.6 at 0: 61 % of them can be routed at TARGET."""
    confidence = rng.random(n)
    return Answered(confidence, rng.random(n) < 1 - 0.4 * (1 - confidence) ** 2)


def routed_accuracy(threshold: float) -> float:
    """Of all tickets of `draw` at the threshold or above."""
    return 1 - 0.4 * (1 - threshold) ** 2 / 3


def test_the_target_is_missed_no_more_often_than_declared_and_the_naive_threshold_misses_it_often() -> None:
    rng = np.random.default_rng(0)
    planning, missed, naive, covered = draw(500, rng), 0, 0, []
    for _ in range(N_DRAWS):
        tickets = draw(1000, rng)
        found = certify(planning, tickets, target=TARGET)
        missed += found.threshold is not None and routed_accuracy(found.threshold) < TARGET
        covered.append(0.0 if found.threshold is None else 1 - found.threshold)
        falling = np.argsort(-tickets.confidence)
        kept = np.cumsum(tickets.right[falling]) / np.arange(1, 1001) >= TARGET
        naive += routed_accuracy(float(tickets.confidence[falling][np.nonzero(kept)[0][-1]])) < TARGET
    assert missed <= binom.isf(0.001, N_DRAWS, 0.05)
    assert naive >= N_DRAWS // 4
    assert np.mean(covered) > 0.45


def test_planning_tickets_of_another_kind_cost_coverage_but_not_the_promise() -> None:
    rng = np.random.default_rng(1)
    flattering = Answered(rng.random(300), np.ones(300, bool))
    missed = 0
    for _ in range(N_DRAWS):
        found = certify(flattering, draw(1000, rng), target=TARGET)
        missed += found.threshold is not None and routed_accuracy(found.threshold) < TARGET
    assert missed <= binom.isf(0.001, N_DRAWS, 0.05)


def test_the_threshold_is_the_last_that_an_exact_binomial_tail_proves() -> None:
    rng = np.random.default_rng(2)
    planning, tickets = draw(500, rng), draw(1000, rng)
    found = certify(planning, tickets, target=TARGET)
    proven = []
    for level in order_of_tests(planning, 1000, target=TARGET, alpha=0.05):
        routed = tickets.right[tickets.confidence >= level]
        p_value = binom.sf(routed.sum() - 1, len(routed), TARGET)
        if p_value > 0.05:
            break
        proven.append((level, len(routed), routed.sum(), p_value))
    assert (found.threshold, found.n_routed, found.n_right, found.p_value) == pytest.approx(proven[-1])
    assert found.coverage == found.n_routed / 1000


def test_thresholds_are_tested_from_the_surest_down_and_only_planning_tickets_choose_them() -> None:
    planning = draw(500, np.random.default_rng(3))
    levels = order_of_tests(planning, 1000, target=TARGET, alpha=0.05)
    assert all(above > below for above, below in pairwise(levels))
    assert set(levels) <= set(planning.confidence)
    assert levels[-1] == planning.confidence.min()


def clustered(n_clusters: int, rng: np.random.Generator) -> Answered:
    """Clusters of 1 to 8 tickets that are all right or all wrong; exactly TARGET of the tickets are right."""
    sizes = rng.integers(1, 9, n_clusters)
    right = np.repeat(rng.random(n_clusters) < TARGET, sizes)
    return Answered(rng.random(len(right)), right, np.repeat(np.arange(n_clusters), sizes))


def test_clusters_count_as_one_observation_each_where_counting_tickets_would_break_the_promise() -> None:
    rng = np.random.default_rng(4)
    by_clusters = by_tickets = 0
    planning = clustered(100, rng)
    for _ in range(400):  # at TARGET itself every certificate is an error
        tickets = clustered(200, rng)
        by_clusters += cluster_p_value(cluster_wins(tickets, 0.0, TARGET, 8), TARGET, 8) <= 0.05
        by_tickets += binom.sf(tickets.right.sum() - 1, len(tickets), TARGET) <= 0.05
    assert by_clusters <= binom.isf(0.001, 400, 0.05)
    assert by_tickets >= 60
    assert certify(planning, clustered(200, rng), target=TARGET).n_clusters == 200


def test_clusters_certify_what_is_clearly_right() -> None:
    rng = np.random.default_rng(5)

    def tickets(n: int) -> Answered:
        belongs = np.repeat(np.arange(n), 3)
        confidence = rng.random(len(belongs))
        return Answered(confidence, (confidence < 0.2) < (rng.random(len(belongs)) < 0.995), belongs)

    found = certify(tickets(200), tickets(500), target=TARGET)
    assert found.threshold is not None
    assert 0.5 < found.coverage < 0.85
    few = certify(tickets(200), tickets(20), target=TARGET)
    assert few.threshold is None
    assert few.n_more is not None


def test_a_cluster_larger_than_every_planning_cluster_counts_as_the_largest_of_those() -> None:
    tickets = Answered(np.ones(14), np.array([True] * 4 + [False] * 10), np.array([0] * 4 + [1] * 10))
    assert cluster_wins(tickets, 0.5, TARGET, 4).tolist() == pytest.approx([4 * 0.05, -4 * TARGET])


@pytest.mark.parametrize("n", [5, 12])  # too few for any estimate, and for a tenth of the estimated number
def test_a_few_right_tickets_say_how_many_are_needed_at_least_and_not_that_no_number_would_do(n: int) -> None:
    few = Answered(np.linspace(0.8, 0.9, n), np.ones(n, np.bool_))
    found = certify(few, few, target=TARGET)
    assert (found.threshold, found.n_more, found.n_least) == (None, None, 59 - n)
    assert f"at least {59 - n} more calibration tickets are needed" in found.sentence()


def test_too_few_tickets_certify_nothing_and_say_how_many_more_would_do() -> None:
    rng = np.random.default_rng(6)
    found = certify(draw(500, rng), draw(40, rng), target=TARGET)
    assert found.threshold is None
    assert found.coverage == 0
    assert found.n_more is not None
    assert found.sentence().endswith(f"about {found.n_more} more calibration tickets would do")
    enough = tickets_needed(draw(2000, rng), target=TARGET, alpha=0.05)
    assert enough is not None
    proven = [certify(draw(500, rng), draw(enough, rng), target=TARGET).threshold is not None for _ in range(40)]
    assert 20 <= sum(proven) < 40  # the number is for a chance of 0.8


def test_of_a_model_that_is_never_right_enough_no_number_of_tickets_would_do() -> None:
    rng = np.random.default_rng(7)
    tickets = Answered(rng.random(500), rng.random(500) < 0.6)
    found = certify(tickets, tickets, target=TARGET)
    assert (found.threshold, found.n_more) == (None, None)
    assert "no number of tickets would do" in found.sentence()
    assert tickets_needed(tickets, target=TARGET, alpha=0.05) is None
    nothing = Answered(np.zeros(0), np.zeros(0, bool))
    assert "no answered tickets to plan with" in certify(nothing, tickets, target=TARGET).sentence()


def test_answers_that_are_never_routed_are_neither_tested_nor_covered() -> None:
    right = np.arange(600) < 400
    tickets = Answered(np.where(right, 0.9, -np.inf), right)
    found = certify(tickets, tickets, target=TARGET)
    assert (found.threshold, found.n_routed, found.n_right) == (0.9, 400, 400)


def test_wrong_inputs_are_refused() -> None:
    tickets = draw(10, np.random.default_rng(9))
    with pytest.raises(ValueError, match="between 0 and 1"):
        certify(tickets, tickets, target=1.0)
    with pytest.raises(ValueError, match="both be in clusters"):
        certify(tickets, Answered(tickets.confidence, tickets.right, np.arange(10)), target=TARGET)
    with pytest.raises(ValueError, match="differ in number"):
        Answered(tickets.confidence, tickets.right[:5])
    with pytest.raises(ValueError, match="not a number"):
        Answered(np.array([np.nan]), np.array([True]))
    assert Certificate(TARGET, 0.95, 0.5, 100, None, n_routed=80).coverage == 0.8
