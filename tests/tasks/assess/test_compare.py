"""Bounds against brute force, exact enumeration and published figures."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from schemas.metrics import MetricTraits
from tasks.assess.compare import (
    Bounds,
    clopper_pearson_interval,
    estimate_mean,
    tail_bound,
    tail_quantile,
    tango_interval,
    tango_z,
    z_value,
)
from tasks.assess.macro_f1 import macro_f1_values
from tasks.assess.power import items_needed, paired_items_needed
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS, shortage_of, weigh_change

Z95 = z_value(0.95)


def bootstrap_t_interval(values: np.ndarray, *, confidence: float, seed: int = 0, n_resamples: int = 4000) -> Bounds:
    return estimate_mean(values, seed=seed, n_resamples=n_resamples).bounds(confidence=confidence)


def _brute_force_z(gained: int, lost: int, n: int, difference: float) -> float:
    """The score statistic with the restricted likelihood maximised numerically instead of in closed form."""
    same = n - gained - lost

    def negative_log_likelihood(share_lost: float) -> float:
        terms = ((gained, share_lost + difference), (lost, share_lost), (same, 1 - 2 * share_lost - difference))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in terms if count)

    best = minimize_scalar(
        negative_log_likelihood,
        bounds=(max(0.0, -difference), (1 - difference) / 2),
        method="bounded",
        options={"xatol": 1e-12},
    ).x
    return (gained - lost - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference)))


@pytest.mark.parametrize("counts", [(7, 12, 200), (12, 4, 200), (1, 0, 50), (0, 3, 96), (30, 30, 100), (5, 0, 20)])
@pytest.mark.parametrize("difference", [-0.2, -0.05, -0.02, 0.01, 0.1])
def test_the_closed_form_equals_the_numerically_maximised_likelihood(
    counts: tuple[int, int, int], difference: float
) -> None:
    assert float(tango_z(*counts, difference)) == pytest.approx(_brute_force_z(*counts, difference), abs=2e-3)


def test_a_bound_is_where_the_brute_force_statistic_reaches_the_quantile() -> None:
    bounds = tango_interval(12, 4, 200, confidence=0.95, continuity=0)
    assert _brute_force_z(12, 4, 200, bounds.lower) == pytest.approx(Z95, abs=1e-3)
    assert _brute_force_z(12, 4, 200, bounds.upper) == pytest.approx(-Z95, abs=1e-3)


# Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33:2850-2875, airway hyper-responsiveness before and
# after stem cell transplantation: Tango's 95 % interval. And R's PropCIs::scoreci.mp(41, 48, 549, 0.90), in points.
@pytest.mark.parametrize(
    ("counts", "confidence", "lower", "upper"),
    [((1, 7, 21), 0.975, -0.517, -0.026), ((48, 41, 549), 0.95, -0.0157, 0.0414)],
)
def test_without_the_correction_the_interval_is_the_published_one(
    counts: tuple[int, int, int], confidence: float, lower: float, upper: float
) -> None:
    bounds = tango_interval(*counts, confidence=confidence, continuity=0)
    places = 3 if confidence > 0.95 else 4
    assert (round(bounds.lower, places), round(bounds.upper, places)) == (lower, upper)


def test_the_correction_moves_each_bound_away_from_the_estimate_by_less_than_half_an_item() -> None:
    for counts in ((12, 4, 200), (0, 0, 96), (30, 2, 60), (5, 40, 1000)):
        plain = tango_interval(*counts, confidence=0.95, continuity=0)
        cautious = tango_interval(*counts, confidence=0.95)
        assert 0 <= plain.lower - cautious.lower < 0.5 / counts[2]
        assert 0 <= cautious.upper - plain.upper < 0.5 / counts[2]


def test_without_any_difference_the_bounds_are_known_in_closed_form() -> None:
    for n in (20, 96, 1000):
        bounds = tango_interval(0, 0, n, confidence=0.95, continuity=0)
        assert bounds.lower == pytest.approx(-(Z95**2) / (n + Z95**2))
        assert bounds.upper == pytest.approx(Z95**2 / (n + Z95**2))


counts = st.integers(1, 300).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda gained: st.tuples(st.just(gained), st.integers(0, n - gained), st.just(n))
    )
)


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_bounds_enclose_the_estimate_and_mirror_when_the_models_swap(
    count: tuple[int, int, int], confidence: float
) -> None:
    gained, lost, n = count
    bounds, swapped = (tango_interval(a, b, n, confidence=confidence) for a, b in ((gained, lost), (lost, gained)))
    assert -1 <= bounds.lower <= bounds.estimate <= bounds.upper <= 1
    assert bounds.lower == pytest.approx(-swapped.upper, abs=1e-9)


@given(counts)
def test_the_statistic_falls_as_the_hypothetical_difference_grows(count: tuple[int, int, int]) -> None:
    z = tango_z(*count, np.linspace(-0.99, 0.99, 199))
    assert (np.diff(z) <= 1e-9).all()


def test_clopper_pearson_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 10), (3, 10), (10, 10), (12, 20), (90, 96), (95, 96), (200, 400), (392, 400)):
        interval = binomtest(k, n).proportion_ci(confidence_level=0.9, method="exact")
        bounds = clopper_pearson_interval(k, n, confidence=0.95)
        assert (bounds.lower, bounds.upper) == pytest.approx((interval.low, interval.high))


def test_bootstrap_t_equals_the_t_interval_on_normal_values_and_is_repeatable() -> None:
    from scipy.stats import t

    values = np.random.default_rng(3).normal(0.1, 1.0, 400)
    bounds = bootstrap_t_interval(values, confidence=0.95, seed=1)
    error = values.std(ddof=1) / math.sqrt(400)
    assert bounds.lower == pytest.approx(values.mean() - t.ppf(0.95, 399) * error, abs=0.06 * error)
    assert bounds.upper == pytest.approx(values.mean() + t.ppf(0.95, 399) * error, abs=0.06 * error)
    assert bounds == bootstrap_t_interval(values, confidence=0.95, seed=1)
    assert bounds != bootstrap_t_interval(values, confidence=0.95, seed=2)


# Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 12.5: survival of the nine control mice in
# days, mean 56.22, central 90 % bootstrap-t interval 35.82 to 116.74.
def test_bootstrap_t_gives_the_interval_of_its_textbook() -> None:
    mice = np.array([52.0, 104.0, 146.0, 10.0, 51.0, 30.0, 40.0, 27.0, 46.0])
    bounds = bootstrap_t_interval(mice, confidence=0.95, n_resamples=100_000)
    assert bounds.estimate == pytest.approx(56.22, abs=0.005)
    assert bounds.lower == pytest.approx(35.82, abs=0.5)
    assert bounds.upper == pytest.approx(116.74, abs=3)


def test_bootstrap_t_equals_brute_force_over_every_possible_sample() -> None:
    import itertools

    values = np.array([0.1, 0.4, 0.35, -0.2, 0.9, 0.0])
    samples = np.array(list(itertools.product(values - values.mean(), repeat=6)))  # all 46,656
    spread = samples.std(axis=1, ddof=1) / math.sqrt(6)
    flat = ~(spread > 1e-9)
    t = np.where(flat, np.copysign(np.inf, samples.mean(axis=1)), samples.mean(axis=1) / np.where(flat, 1.0, spread))
    error = values.std(ddof=1) / math.sqrt(6)
    bounds = bootstrap_t_interval(values, confidence=0.9, n_resamples=200_000)
    assert bounds.lower == pytest.approx(values.mean() - np.quantile(t, 0.9, method="higher") * error, abs=0.02)
    assert bounds.upper == pytest.approx(values.mean() - np.quantile(t, 0.1, method="lower") * error, abs=0.05)


def test_bootstrap_t_leans_away_from_the_long_tail() -> None:
    values = np.random.default_rng(4).beta(1, 12, 300)  # rare large values on the right
    bounds = bootstrap_t_interval(values, confidence=0.95)
    assert bounds.upper - bounds.estimate > 1.05 * (bounds.estimate - bounds.lower)


# 'sparse_left': most items equal, rare catastrophic answers. At n=200 the percentile bootstrap passes 10 %.
def test_bootstrap_t_seldom_passes_a_candidate_at_the_limit_with_rare_catastrophic_answers() -> None:
    generator = np.random.default_rng(5)

    def draw(size: int) -> np.ndarray:
        small, large = generator.beta(2, 6, size) * 0.4, -generator.beta(3, 2, size)
        return np.where(generator.random(size) < 0.8, 0.0, np.where(generator.random(size) < 0.85, small, large))

    mean = draw(1_000_000).mean()
    passed = [
        bootstrap_t_interval(draw(200) - mean, confidence=0.95, seed=rep, n_resamples=400).lower > 0
        for rep in range(400)
    ]
    assert np.mean(passed) <= 0.09  # 5.8 % measured over 3,000 repetitions; three standard errors of 400


@pytest.mark.parametrize(
    "values", [np.zeros(300), np.full(300, 0.25), np.array([0.1, math.nan, 0.3]), np.array([0.1]), np.array([])]
)
def test_bootstrap_t_refuses_values_without_spread_or_sense(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="bootstrap-t"):
        bootstrap_t_interval(values, confidence=0.95)


def test_bounds_widen_with_the_confidence_beyond_the_resolution_of_the_draws() -> None:
    estimate = estimate_mean(np.random.default_rng(0).normal(0.02, 0.3, 400))
    found = [estimate.bounds(confidence=level) for level in (0.95, 0.999, 0.99975, 0.9999, 0.99999, 0.9999999)]
    assert all(wider.lower < bounds.lower for bounds, wider in pairwise(found))
    assert all(wider.upper > bounds.upper for bounds, wider in pairwise(found))
    # the normal quantile of 1e-7 is 5.2 errors; the bound on the tail is wider, and not by more than a fifth
    assert 5.2 < (found[-1].estimate - found[-1].lower) / estimate.error < 6.2
    for bounds, level in zip(found, (0.05, 1e-3, 2.5e-4, 1e-4, 1e-5, 1e-7), strict=True):
        assert estimate.p_below(bounds.upper + 0.01) <= level


@pytest.mark.parametrize("shape", ["normal", "right", "left"])
def test_the_bound_on_a_tail_is_above_what_a_million_draws_count(shape: str) -> None:
    generator = np.random.default_rng(3)
    units = {"normal": generator.normal(size=40), "right": generator.exponential(size=60),
             "left": -generator.exponential(size=60)}[shape]  # fmt: skip
    units = units - units.mean()
    n = len(units)
    drawn = units[generator.integers(0, n, (100_000, n))]
    t = drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * n**0.5
    for at in (2.0, 2.5, 3.0):
        counted = float((t >= at).mean())
        assert counted <= tail_bound(units, at) <= 12 * counted + 1e-4
    assert tail_bound(units, -1.0) == 1.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        tail_quantile(units, 0.0)


N_TAIL = MIN_CONTINUOUS_ITEMS


def _time_outs(generator: np.random.Generator) -> np.ndarray:
    """Seconds of two equally fast models, of which 1 % of the answers time out."""
    first = generator.lognormal(0.0, 0.3, N_TAIL)
    second = first * generator.lognormal(0.0, 0.1, N_TAIL)
    late, other = generator.random((2, N_TAIL)) < 0.01
    return np.where(late, 60.0, second) - np.where(other, 60.0, first)


def _new_time_outs(generator: np.random.Generator) -> np.ndarray:
    """Seconds saved by a model that is 5 % faster, but times out in 1 % of the answers: on average nothing."""
    gain = generator.normal(0.05, 0.1, N_TAIL)
    return np.where(generator.random(N_TAIL) < 0.01, -30.0, gain) - (0.99 * 0.05 - 0.01 * 30.0)


def _new_empty_replies(generator: np.random.Generator) -> np.ndarray:
    """chrF gained by a model that replies a little better, but not at all to 1 % of the tickets: on average nothing."""
    base = generator.beta(5.0, 5.0, N_TAIL)
    gain = generator.normal(0.01, 0.1, N_TAIL)
    return np.where(generator.random(N_TAIL) < 0.01, -base, gain) - (0.99 * 0.01 - 0.01 * 0.5)


def _macro_f1(generator: np.random.Generator) -> np.ndarray:
    """Two equal classifiers of 20 classes, the rarest with a handful of 320 items."""
    shares = 1 / np.arange(1, 21) ** 1.2
    shares /= shares.sum()
    truth, guess, other = (generator.choice(20, N_TAIL, p=shares) for _ in range(3))
    usual = np.where(generator.random(N_TAIL) < 0.8, truth, guess)
    arms = [np.where(generator.random(N_TAIL) < 0.08, np.where(generator.random(N_TAIL) < 0.8, truth, other), usual)
            for _ in range(2)]  # fmt: skip
    first, second = (np.array(macro_f1_values(list(map(str, truth)), list(map(str, arm)))) for arm in arms)
    return np.asarray(second - first)


def _lognormal(sigma: float) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda generator: np.exp(sigma**2 / 2) - generator.lognormal(0.0, sigma, N_TAIL)


@pytest.mark.parametrize(
    "draw",
    [_time_outs, _new_time_outs, _new_empty_replies, _macro_f1, _lognormal(1.0), _lognormal(1.5), _lognormal(2.0)],
)
def test_heavy_tails_pass_no_more_often_than_declared_since_most_are_held(
    draw: Callable[[np.random.Generator], np.ndarray],
) -> None:
    """Without the number of items that carry the spread 8 to 16 % of these worthless candidates passed."""
    generator = np.random.default_rng(8)
    traits = MetricTraits(name="seconds", continuous=True)
    passed = blocked = 0
    for _ in range(200):
        gains = draw(generator)
        if shortage_of(gains, traits, None) is None:
            found = weigh_change(gains, traits, kind="improve", margin=0.0, alpha=0.05, clusters=None).outcome
            passed, blocked = passed + bool(found.met), blocked + bool(found.p_harm <= 0.05)
    assert passed / 200 <= 0.065
    assert blocked / 200 <= 0.065


def test_values_without_heavy_tails_are_not_held() -> None:
    generator = np.random.default_rng(7)
    traits = MetricTraits(name="chrf", continuous=True)
    for _ in range(50):
        gains = np.where(generator.random(N_TAIL) < 0.5, generator.normal(0.0, 0.3, N_TAIL), 0.0)
        assert shortage_of(gains, traits, None) is None
    heavy = np.r_[np.zeros(220), np.linspace(-1, 1, 99), 500.0]
    assert "comes from about 1 items with extreme values" in (shortage_of(heavy, traits, None) or "")


@pytest.mark.parametrize(("gained", "lost", "n"), [(-1, 0, 10), (6, 5, 10), (0, 0, 0)])
def test_impossible_counts_are_refused(gained: int, lost: int, n: int) -> None:
    with pytest.raises(ValueError, match="impossible"):
        tango_interval(gained, lost, n, confidence=0.95)


# One-sided 5 %, power 80 %: the published table of items needed.
@pytest.mark.parametrize(
    ("drop", "discordance", "n"), [(0.05, 0.1, 246), (0.05, 0.2, 493), (0.02, 0.1, 1544), (0.02, 0.2, 3090)]
)
def test_items_needed_to_detect_a_drop(drop: float, discordance: float, n: int) -> None:
    assert paired_items_needed(drop, discordance=discordance, confidence=0.95, power=0.8) == n


def test_nothing_to_find_needs_no_number_of_items() -> None:
    assert items_needed(0.0, sd_null=0.3, sd_true=0.3, confidence=0.95) is None
    assert items_needed(-0.1, sd_null=0.3, sd_true=0.3, confidence=0.95) is None
    assert items_needed(math.nan, sd_null=0.3, sd_true=0.3, confidence=0.95) is None
