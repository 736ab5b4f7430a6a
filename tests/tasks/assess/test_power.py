"""Items that a gate needs: the formulae against simulated gates and published figures."""

import numpy as np
import pytest
from scipy.stats import binom

from schemas.gates import ChangeThreshold, GateRule, GatesSpec, InterimSpec, PowerSpec, SliceGuard
from schemas.metrics import traits_by_name
from tasks.assess.compare import estimate_mean
from tasks.assess.contract import anchor_outcome, change_outcome, share_outcome
from tasks.assess.pass_chance import Comparison, pass_chances
from tasks.assess.plan_gate import Disagreement, RulePower, plan_gate, plan_interim
from tasks.assess.power import (
    margin_items_needed,
    paired_items_needed,
    share_items_needed,
    smallest_difference,
    smallest_distance,
    smallest_margin,
)

IMPROVE = GateRule(metric="exact", change_threshold=ChangeThreshold())
REFRESH = GateRule(metric="exact", change_threshold=ChangeThreshold(mode="refresh", margin=0.02))


def promoted(n: int, difference: float, discordance: float, *, margin: float, seed: int) -> float:
    """Share of simulated candidates with a bound above -margin."""
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    draws = np.random.default_rng(seed).multinomial(n, shares, size=20_000)
    met = change_outcome(draws[:, 0], draws[:, 1], n, margin=margin, alpha=0.05).met
    return float(met.mean())


@pytest.mark.parametrize(("effect", "discordance"), [(0.05, 0.1), (0.03, 0.1), (0.05, 0.2), (0.02, 0.05)])
def test_the_items_for_a_gain_give_the_power_that_they_promise_in_the_real_gate(
    effect: float, discordance: float
) -> None:
    n = paired_items_needed(effect, discordance=discordance)
    assert n is not None
    assert promoted(n, effect, discordance, margin=0.0, seed=1) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("margin", "discordance"), [(0.05, 0.1), (0.02, 0.1), (0.05, 0.2)])
def test_the_items_for_a_margin_show_it_for_an_equal_candidate_as_often_as_promised(
    margin: float, discordance: float
) -> None:
    n = margin_items_needed(margin, discordance=discordance)
    assert n is not None
    draws = np.random.default_rng(2).multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=20_000)
    shown = anchor_outcome(draws[:, 0], draws[:, 1], n, margin=margin, alpha=0.05).met
    assert 0.75 <= float(shown.mean()) <= 0.83  # the approximation is optimistic by up to 5 points at small n


# n = 6.18 * discordance / margin**2; the published table for 80 % power and one-sided 5 %.
@pytest.mark.parametrize(("margin", "n"), [(0.01, 6183), (0.02, 1546), (0.03, 687), (0.05, 248)])
def test_items_for_a_margin_are_those_of_the_table(margin: float, n: int) -> None:
    assert margin_items_needed(margin, discordance=0.1) == pytest.approx(n, abs=1)


@pytest.mark.parametrize(("limit", "true"), [(0.5, 0.6), (0.9, 0.95), (0.9, 1.0), (0.02, 0.07)])
def test_a_share_is_shown_from_the_number_of_items_on_and_not_one_item_earlier(limit: float, true: float) -> None:
    from scipy.stats import binom

    n = share_items_needed(limit, true)
    assert n is not None

    def power(items: int) -> float:
        right = np.arange(items + 1)
        return float(binom.pmf(right, items, true)[share_outcome(right, items, limit=limit, alpha=0.05).met].sum())

    assert min(power(items) for items in range(n, n + 60)) >= 0.8
    assert power(n - 1) < 0.8


def test_the_smallest_effect_of_given_items_needs_just_those_items() -> None:
    for n in (96, 246, 1000):
        difference, margin = smallest_difference(n, discordance=0.1), smallest_margin(n, discordance=0.1)
        assert difference is not None
        assert margin is not None
        assert paired_items_needed(difference, discordance=0.1) == n
        assert margin_items_needed(margin, discordance=0.1) == n
    # detectable at n = 200, 500, 1000, 2000 and discordance 0.1: 5.6, 3.5, 2.5, 1.8 points
    shown = [smallest_margin(n, discordance=0.1) for n in (200, 500, 1000, 2000)]
    assert shown == pytest.approx([0.056, 0.035, 0.025, 0.018], abs=0.0006)
    distance = smallest_distance(149, 0.98)
    assert distance is not None
    assert 0.018 < distance <= 0.02
    assert smallest_distance(100, 0.98) is None


def test_the_items_for_a_continuous_gain_give_the_power_that_they_promise() -> None:
    [row] = plan([GateRule(metric="chrf", change_threshold=ChangeThreshold())], 1000)
    assert row.needed == 320
    smallest = 2.4865 * 0.25 / 400**0.5  # 400 items, spread 0.25
    generator = np.random.default_rng(3)
    shown = [
        estimate_mean(generator.normal(smallest, 0.25, 400), seed=rep, n_resamples=400).bounds(confidence=0.95).lower
        > 0
        for rep in range(300)
    ]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.07)
    [row] = plan([GateRule(metric="chrf", change_threshold=ChangeThreshold())], 400)
    assert row.smallest == pytest.approx(smallest, rel=1e-3)


def plan(rules: list[GateRule], n_items: int | None, **gates: object) -> tuple[RulePower, ...]:
    spec = GatesSpec.model_validate({"rules": [rule.model_dump() for rule in rules], **gates})
    return plan_gate(spec, traits=traits_by_name(), n_items=n_items, seen={})


def test_a_plan_says_what_is_needed_there_and_shown() -> None:
    improve, refresh, value = plan([IMPROVE, REFRESH, GateRule(metric="format", value_threshold=0.98)], 400)
    assert (improve.needed, improve.at_hand, improve.underpowered) == (246, 400, False)
    assert (refresh.needed, refresh.underpowered) == (135, False)  # a gain of an error, if the true one is 0.05
    assert "10 % of the items right in one model alone (discordance, assumed)" in refresh.what
    assert (value.needed, value.smallest) == (149, pytest.approx(0.0138, abs=0.002))


def test_a_plan_says_what_a_comparison_passes_with_the_items_that_are_there() -> None:
    improve, refresh, value = plan([IMPROVE, REFRESH, GateRule(metric="format", value_threshold=0.98)], 1000)
    assert improve.passes is not None
    assert improve.passes.sentence() == (
        "This gate passes an equal model in 5 %, one 2 points worse in under 0.1 %, one 3 points better in 91 % (1,000 "
        "items, 10 % of them right in one model alone)"
    )
    assert refresh.passes is not None
    assert refresh.passes.chances[2] > improve.passes.chances[2]
    assert value.passes is None
    few, *_ = plan([GateRule(metric="chrf", change_threshold=ChangeThreshold())], 100)
    assert few.passes is None  # too few items to bound its mean


@pytest.mark.parametrize("n", [40, 248])
@pytest.mark.parametrize("change", [
    ChangeThreshold(), ChangeThreshold(mode="refresh", margin=0.02), ChangeThreshold(mode="no_worse", margin=0.05),
])  # fmt: skip
def test_chances_to_pass_are_those_of_the_contract_summed_over_every_outcome(n: int, change: ChangeThreshold) -> None:
    won, lost = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    met = (
        anchor_outcome(won, lost, n, margin=change.margin, alpha=0.05).met
        if change.mode == "no_worse"
        else change_outcome(won, lost, n, margin=change.margin, alpha=0.05, min_gain=change.least_gain).met
    )
    rule = Comparison(change, n, 0.1, paired=True, alpha=0.05)
    for gain in (-0.02, 0.0, 0.03):
        p_won, p_lost = (0.1 + gain) / 2, (0.1 - gain) / 2
        p = binom.pmf(won, n, p_won) * binom.pmf(lost, np.maximum(n - won, 0), p_lost / (1 - p_won))
        expected = float(np.where(met & (won + lost <= n), p, 0.0).sum())
        assert pass_chances(rule, (gain,))[0] == pytest.approx(expected, abs=1e-6)


def test_before_curation_no_gate_is_called_underpowered() -> None:
    assert not any(row.underpowered for row in plan([IMPROVE, REFRESH], None))


def test_what_the_last_verdict_saw_replaces_the_assumption_and_a_declaration_replaces_both() -> None:
    spec = GatesSpec(rules=(IMPROVE,))
    seen = {"exact": Disagreement(discordance=0.2, spread=0.4)}
    [row] = plan_gate(spec, traits={}, n_items=400, seen=seen)
    assert (row.needed, row.underpowered) == (493, True)
    declared = spec.model_copy(update={"power": PowerSpec(discordance=0.05)})
    [row] = plan_gate(declared, traits={}, n_items=400, seen=seen)
    assert row.needed is not None
    assert row.needed < 246


def test_a_rule_whose_labels_come_later_is_not_planned_to_stop_a_run() -> None:
    def items_if_equal(*metrics: str) -> float | None:
        rules = tuple(GateRule(metric=metric, change_threshold=ChangeThreshold()) for metric in metrics)
        plan = plan_interim(GatesSpec(rules=rules, interim=InterimSpec()), n_items=700, batch_size=1)
        return None if plan is None else plan.items_if_equal

    assert items_if_equal("right") is None
    assert (items_if_equal("right", "exact") or 700) < 600


def test_looks_and_a_split_budget_ask_for_more_items() -> None:
    [once], [thrice] = plan([IMPROVE], 400), plan([IMPROVE], 400, looks={"max": 3, "spend": "equal"})
    assert once.needed is not None
    assert thrice.needed is not None
    assert thrice.needed > 1.1 * once.needed
    [spent] = plan([IMPROVE], 400, looks={"max": 3})
    assert once.needed < (spent.needed or 0) < 1.05 * once.needed


def test_a_rule_that_nothing_can_meet_is_underpowered_at_any_size() -> None:
    [row] = plan([GateRule(metric="exact", value_threshold=1.0)], 10_000)
    assert row.needed is None
    assert row.underpowered


def test_items_that_belong_together_are_said_to_count_for_less() -> None:
    [row] = plan([IMPROVE], 400, cluster_by="customer_id")
    assert row.what.endswith("; more if items share a customer_id")


def test_slices_say_what_the_smallest_of_them_shows() -> None:
    _, row = plan([IMPROVE], 1000, slices=SliceGuard(by=("product",)).model_dump())
    assert row.rule == "exact in slices of product"
    assert row.smallest == pytest.approx(0.0795, abs=0.002)
