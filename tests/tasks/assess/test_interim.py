"""Looks that can only stop: nothing is promoted that would not be anyway, and what a stop costs and saves, exactly."""

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from schemas.metrics import traits_of
from tasks.assess import contract
from tasks.assess.interim import (
    HARM_AT_STOP,
    PairedRule,
    aim_of,
    change_chances,
    gain_chances,
    mean_chance,
    run_in_batches,
    share_chance,
    stops,
)
from tasks.assess.weigh import Kind, weigh_change
from tasks.tickets.draw import look_ends

ALPHA, STOP_BELOW, POWER = 0.05, 0.2, 0.8
Answers = NDArray[np.bool_]


def answers(
    generator: np.random.Generator, runs: int, n: int, *, discordance: float, gain: float
) -> tuple[Answers, Answers]:
    """Right answers of candidate and champion (runs, items)."""
    luck, champion = generator.random((2, runs, n))
    lost, won = (discordance - gain) / 2 / 0.8, (discordance + gain) / 2 / 0.2
    right = champion < 0.8
    return np.where(right, luck >= lost, luck < won), right


def exact(
    n_planned: int, *, discordance: float, gain: float, effect: float, planned: float = 0.1, looks: bool = True
) -> dict[str, float]:
    """Probabilities of the verdicts of `improve`, and the mean share of items, summed over all outcomes."""
    ends = look_ends(n_planned, batches=10, batch_size=32) if looks else (n_planned,)
    aim = aim_of("improve", margin=0.0, alpha=ALPHA, effect=effect)
    most = int(n_planned * (discordance + abs(gain)) / 2 + 7 * (n_planned * discordance / 2) ** 0.5) + 12
    size = 1 << (2 * most + 1).bit_length()
    won, lost = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
    mass = np.zeros((most + 1, most + 1))
    mass[0, 0] = 1.0
    found = dict.fromkeys(("promote", "block", "items"), 0.0)
    before = 0
    for end in ends:
        batch = end - before
        found["items"] += mass.sum() * batch / n_planned
        x, up, down = np.arange(most + 1), (discordance + gain) / 2, (discordance - gain) / 2
        step = binom.pmf(x[:, None], batch, up) * binom.pmf(x, np.maximum(batch - x[:, None], 0), down / (1 - up))
        spread = np.fft.rfft2(mass, (size, size)) * np.fft.rfft2(step, (size, size))
        mass = np.fft.irfft2(spread, (size, size))[: most + 1, : most + 1].clip(0)
        level = ALPHA if end == n_planned else ALPHA * HARM_AT_STOP
        outcome = contract.change_outcome(won, lost, end, margin=0.0, alpha=level)
        start, now = change_chances(won, lost, end, n_planned, aim=aim, discordance=planned)
        ended = end == n_planned or stops(now, start, stop_below=STOP_BELOW, power=POWER)
        found["block"] += mass[ended & (outcome.p_harm <= level)].sum()
        found["promote"] += mass[(end == n_planned) & (outcome.p_harm > level) & outcome.met].sum()
        mass = np.where(ended, 0.0, mass)
        before = end
    return found


@pytest.mark.parametrize(("kind", "margin"), [("improve", 0.0), ("refresh", 0.02), ("anchor", 0.05)])
def test_no_run_is_promoted_that_is_not_without_looks(kind: Kind, margin: float) -> None:
    generator, n_promoted = np.random.default_rng([1, len(kind)]), 0
    for gain in (-0.01, 0.0, 0.02, 0.04):
        ours, theirs = answers(generator, 2500, 400, discordance=0.1, gain=gain)
        rules = [PairedRule(theirs, kind, margin)]
        batched = run_in_batches(
            ours, rules, looks=look_ends(400, batches=10, batch_size=1), effect=0.04, discordance=0.1
        )
        whole = run_in_batches(ours, rules, looks=[400], effect=0.04, discordance=0.1)
        promoted = batched.codes == contract.PROMOTE
        assert not (promoted & (whole.codes != contract.PROMOTE)).any()
        assert (batched.codes[~batched.stopped] == whole.codes[~batched.stopped]).all(), "no stop changes nothing"
        assert (batched.codes[batched.stopped] != contract.PROMOTE).all()
        assert not whole.stopped.any()
        n_promoted += int(promoted.sum())
    assert n_promoted > 1000, "there is something to promote"


@pytest.mark.parametrize(
    ("n", "discordance", "effect"), [(330, 0.05, 0.03), (693, 0.1, 0.03), (1383, 0.2, 0.03), (1552, 0.1, 0.02)]
)
def test_a_stop_costs_two_points_of_power_and_blocks_no_more_equal_candidates(
    n: int, discordance: float, effect: float
) -> None:
    case = partial(exact, n, discordance=discordance, effect=effect, planned=discordance)
    whole, batched = case(gain=effect, looks=False), case(gain=effect)
    assert whole["promote"] == pytest.approx(0.8, abs=0.01)
    assert 0 < whole["promote"] - batched["promote"] <= 0.02
    equal = case(gain=0.0)
    assert equal["promote"] <= case(gain=0.0, looks=False)["promote"] <= 0.0492
    assert equal["block"] <= 0.049
    assert equal["items"] <= 0.64
    assert case(gain=-0.03)["items"] <= 0.4


@pytest.mark.parametrize("n", [200, 300, 700])
@pytest.mark.parametrize("discordance", [0.03, 0.35])
def test_equal_candidates_are_not_blocked_more_often_where_the_plan_is_wrong(n: int, discordance: float) -> None:
    assert exact(n, discordance=discordance, gain=0.0, effect=0.03)["block"] <= 0.049


def test_a_gate_that_had_little_power_from_the_start_does_not_stop_at_once() -> None:
    found = exact(200, discordance=0.35, gain=0.02, effect=0.02, planned=0.35)
    whole = exact(200, discordance=0.35, gain=0.02, effect=0.02, planned=0.35, looks=False)
    assert whole["promote"] < 0.2
    assert found["promote"] > 0.8 * whole["promote"]


def test_a_chance_is_the_share_of_runs_that_are_met() -> None:
    generator = np.random.default_rng(5)
    kinds: tuple[tuple[Kind, float], ...] = (("improve", 0.0), ("refresh", 0.02), ("anchor", 0.02))
    for kind, margin in kinds:
        aim = aim_of(kind, margin=margin, alpha=ALPHA, effect=0.03)
        ours, theirs = answers(generator, 4000, 693, discordance=0.1, gain=aim.effect)
        rule = contract.anchor_outcome if kind == "anchor" else contract.change_outcome
        won, lost = (ours & ~theirs).sum(1), (theirs & ~ours).sum(1)
        met = rule(won, lost, 693, margin=margin, alpha=ALPHA).met.mean()
        _, before = change_chances(0, 0, 0, 693, aim=aim, discordance=0.1)
        assert float(before) == pytest.approx(met, abs=0.03)


def test_a_share_can_no_longer_reach_its_limit_once_too_many_are_wrong() -> None:
    assert share_chance(97, 100, 149, limit=0.98, effect=0.02, alpha=ALPHA) == 0.0
    assert share_chance(100, 100, 149, limit=0.98, effect=0.02, alpha=ALPHA) == 1.0
    assert share_chance(0, 10, 100, limit=0.0, effect=0.02, alpha=ALPHA) == 1.0
    simulated = np.random.default_rng(2).binomial(100, 0.85, 20_000) + 70
    met = contract.share_outcome(simulated, 200, limit=0.8, alpha=ALPHA).met.mean()
    assert float(share_chance(70, 100, 200, limit=0.8, effect=0.05, alpha=ALPHA)) == pytest.approx(met, abs=0.01)


def test_customers_with_many_tickets_make_a_chance_less_sure() -> None:
    generator = np.random.default_rng(3)
    of_customer = np.repeat(np.arange(60), 5)
    gains = (generator.random(60) < 0.12)[of_customer].astype(float) - (generator.random(60) < 0.08)[of_customer]
    aim = aim_of("improve", margin=0.0, alpha=ALPHA, effect=0.02)
    alone = gain_chances(gains, 600, aim=aim, discordance=0.1, continuous=False, clusters=None)
    together = gain_chances(gains, 600, aim=aim, discordance=0.1, continuous=False, clusters=of_customer)
    assert abs(together[1] - 0.5) < abs(alone[1] - 0.5)
    estimate = weigh_change(gains, traits_of("exact"), kind="improve", margin=0.0, alpha=ALPHA, clusters=of_customer)
    assert float(mean_chance(gains.sum(), 300, 600, sd=estimate.sd, aim=aim)) == pytest.approx(together[1], abs=0.01)


def test_without_any_spread_no_chance_is_known_and_nothing_stops() -> None:
    aim = aim_of("improve", margin=0.0, alpha=ALPHA, effect=0.02)
    unknown = gain_chances(np.zeros(50), 600, aim=aim, discordance=0.1, continuous=True, clusters=None)
    assert np.isnan(unknown).all()
    assert not stops(unknown[1], unknown[0], stop_below=0.2, power=POWER)
