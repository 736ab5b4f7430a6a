"""The deciding core: what is met, what is harm, and Holm's procedure over all tests of a gate."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.gates.simulated import false_block, false_pass
from tasks.assess.compare import HARM_CONTINUITY, clopper_pearson_interval, tango_interval
from tasks.assess.contract import (
    BLOCK,
    HOLD,
    PROMOTE,
    anchor_outcome,
    change_outcome,
    guard_outcome,
    holm,
    kept_unless_rejected,
    loss_chances,
    settle,
    share_outcome,
)


def _holm_by_closure(p_values: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as the closed test it is: reject what every intersection containing it rejects by Bonferroni."""
    indices = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(indices, size)]
    return [all(min(p_values[i] for i in s) <= alpha / len(s) for s in sets if index in s) for index in indices]


@given(st.lists(st.sampled_from([0.0, 0.004, 0.009, 0.0125, 0.0166, 0.02, 0.025, 0.049, 0.05, 0.3, 1.0]), min_size=1,
                max_size=6))  # fmt: skip
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    assert holm(p_values, alpha=0.05).tolist() == _holm_by_closure(p_values, 0.05)


def test_holm_on_a_published_family_stops_where_the_hand_does() -> None:
    # p-values of Benjamini and Hochberg (1995), section 4; by hand: 0.0019 <= 0.05 / 13, but 0.0095 > 0.05 / 12.
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
                0.6528, 0.7590, 1.0]  # fmt: skip
    assert holm(p_values, alpha=0.05).tolist() == [True] * 3 + [False] * 12


def test_a_p_value_that_is_no_number_rejects_nothing_and_keeps_nothing() -> None:
    assert not holm([math.nan, 0.5], alpha=0.05).any()
    kept = kept_unless_rejected([math.nan, -0.1, 1.1, 0.5])
    assert kept.met.tolist() == [False, False, False, True]
    for p_value in (math.nan, 1.1):
        alone = kept_unless_rejected([p_value])
        assert settle(alone.met, alone.p_harm, alpha=0.05).tolist() == [HOLD]


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))),
       st.sampled_from([0.0, 0.02, 0.05]))  # fmt: skip
def test_what_decides_is_what_the_shown_bounds_say(counts: tuple[int, int, int], margin: float) -> None:
    gained, lost, n = counts[0], min(counts[1], counts[2] - counts[0]), counts[2]
    bounds = tango_interval(gained, lost, n, confidence=0.95)
    harm = tango_interval(gained, lost, n, confidence=0.95, harm_continuity=HARM_CONTINUITY)
    outcome = change_outcome(gained, lost, n, margin=margin, alpha=0.05)
    assert bool(outcome.met) == (bounds.lower > -margin and gained > lost)
    assert bool(outcome.p_harm <= 0.05) == (bounds.upper < 0)
    anchored = anchor_outcome(gained, lost, n, margin=0.05, alpha=0.05)
    assert bool(anchored.met) == (bounds.lower > -0.05)
    assert bool(anchored.p_harm <= 0.05) == (harm.upper < -0.05)


@pytest.mark.parametrize(("n", "margin"), [(180, 0.02), (360, 0.01), (260, 0.03), (280, 0.02)])
def test_a_candidate_at_the_margin_is_blocked_in_at_most_five_percent(n: int, margin: float) -> None:
    # With a continuity of a quarter item 7.6 % of n=180 and n=360 are blocked.
    for share in (1.02, 1.25, 2.0):
        assert false_block(n, margin, share * margin) <= 0.05


def test_a_slice_of_few_items_is_drawn_towards_the_others_and_nothing_follows_from_no_difference() -> None:
    gains, variances = [0.0] * 9 + [-0.2], [0.1] * 10
    chances = [float(loss_chances(gains, variances, [50] * 9 + [n])[0][-1]) for n in (2, 10, 50, 500)]
    assert chances == sorted(chances)
    assert chances[0] < 0.5 < 0.99 < chances[-1]
    assert loss_chances([0.0] * 3, [0.0] * 3, [5] * 3)[0].tolist() == [0.0] * 3
    assert loss_chances([-0.1], [0.0], [5])[0].tolist() == [0.0]  # each item loses as much: nothing to be drawn to


@pytest.mark.parametrize("n", [1, 10, 96, 400])
@pytest.mark.parametrize("limit", [-0.1, 0.0, 0.3, 0.9, 1.0, 1.1])
def test_a_share_is_decided_as_its_exact_bounds_say(n: int, limit: float) -> None:
    for right in {0, 1, n // 3, n // 2, n - 1, n}:
        bounds = clopper_pearson_interval(right, n, confidence=0.95)
        outcome = share_outcome(right, n, limit=limit, alpha=0.05)
        assert bool(outcome.met) == (bounds.lower >= limit), (right, limit)
        assert bool(outcome.p_harm <= 0.05) == (bounds.upper < limit), (right, limit)
        if 0 < limit < 1:
            assert float(outcome.p_harm) == pytest.approx(binomtest(right, n, limit, alternative="less").pvalue)


def test_thousands_of_candidates_get_the_verdicts_that_each_gets_alone() -> None:
    draws = np.random.default_rng(1).multinomial(300, [0.06, 0.05, 0.89], size=50)
    together = change_outcome(draws[:, 0], draws[:, 1], 300, margin=0.02, alpha=0.05)
    for row, met, p in zip(draws, together.met, together.p_harm, strict=True):
        alone = change_outcome(int(row[0]), int(row[1]), 300, margin=0.02, alpha=0.05)
        assert (bool(alone.met), float(alone.p_harm)) == (bool(met), float(p))


def test_a_slice_is_kept_unless_its_harm_stands_among_all_tests() -> None:
    worse = guard_outcome([5, 5], [16, 30], 100)  # p 0.008 and below 0.0001
    assert settle(worse.met[:1], worse.p_harm[:1], alpha=0.05).tolist() == [BLOCK]
    family = np.concatenate([worse.p_harm, np.full(8, 0.6)])
    assert settle(np.ones(10, bool), family, alpha=0.05).tolist() == [PROMOTE, BLOCK] + [PROMOTE] * 8


# The largest of every n from 20 to 100, and up to 2000, with margins up to 0.1 and discordance 2 to 40 % in steps of
# 2 %, is 4.99 % (n=24, margin 0.015, discordance 0.28). Tango's interval without the correction has 6.8 %.
@pytest.mark.parametrize("n", [20, 24, 42, 66, 135, 300, 2000])
def test_the_interval_never_passes_a_candidate_at_the_margin_more_often_than_declared(n: int) -> None:
    for margin in (0.0, 0.015, 0.02, 0.04, 0.05, 0.1):
        for discordance in (0.02, 0.04, 0.1, 0.2, 0.28, 0.4):
            if discordance >= margin:
                assert false_pass(n, margin, discordance) <= 0.0505, (margin, discordance)
