"""Looks at a candidate together keep the declared error, and cost few items more than a single one."""

from itertools import combinations

import numpy as np
import pytest
from pydantic import ValidationError

from schemas.gates import GateRule, GatesSpec, LooksSpec
from schemas.verdicts import Terms, UsedBudget
from tasks.assess.contract import change_outcome
from tasks.assess.looks import Levels, is_spent, last_levels, levels_of, nested_level, spent_by

RULE = GateRule(metric="exact", value_threshold=0.5)


def three_looks(sizes: list[int], *, gain: float, spend: str = "obrien_fleming", nested: bool = True) -> float:
    """Share of candidates that one of three looks promotes; two models disagree on 10 % of the items."""
    gates = GatesSpec(rules=(RULE,), looks=LooksSpec.model_validate({"max": 3, "spend": spend}))
    steps = np.diff([0, *sizes])
    cells = [(0.1 + gain) / 2, (0.1 - gain) / 2, 0.9]
    generator = np.random.default_rng(sizes)
    drawn = np.stack([generator.multinomial(n, cells, 40_000) for n in steps], axis=1)
    if nested:
        drawn = drawn.cumsum(axis=1)
    promoted = np.zeros(40_000, np.bool_)
    for look, n in enumerate(sizes if nested else steps):
        used = UsedBudget(looks=look, nested=tuple(sizes[:look]) if nested else ())
        level = levels_of(gates, used, n_items=int(n)).met
        promoted |= change_outcome(drawn[:, look, 0], drawn[:, look, 1], n, margin=0.0, alpha=level).met
    return float(promoted.mean())


def test_three_looks_at_a_growing_set_find_three_points_with_730_items() -> None:
    sizes = [243, 487, 730]
    assert three_looks(sizes, gain=0.03) >= 0.8  # 81 %; 714 items have 80 %, a single look needs 693
    assert three_looks(sizes, gain=0.0) <= 0.0505


@pytest.mark.parametrize("spend", ["obrien_fleming", "equal"])
def test_looks_at_other_items_and_at_unequal_steps_keep_the_error(spend: str) -> None:
    assert three_looks([200, 400, 600], gain=0.0, spend=spend, nested=False) <= 0.0505
    assert three_looks([100, 150, 900], gain=0.0, spend=spend) <= 0.0505


def test_the_levels_are_those_of_published_boundaries() -> None:
    # Jennison and Turnbull (2000), section 7.2, and gsDesign's sfLDOF: z of 3.200, 2.141 and 1.695 at one-sided 5 %.
    gates = GatesSpec(rules=(RULE,), looks=LooksSpec(max=3))
    found = [levels_of(gates, UsedBudget(looks=k, nested=(1, 2)[:k]), n_items=k + 1).met for k in range(3)]
    assert found == pytest.approx([0.00069, 0.01614, 0.04505], abs=2e-5)
    assert last_levels(gates) == Levels(met=found[-1], harm=pytest.approx(0.03363, abs=1e-5))
    assert nested_level([0.05], [1]) == pytest.approx(0.05, abs=1e-6)


def test_looks_whose_sets_do_not_grow_spend_their_part_and_no_more() -> None:
    gates = GatesSpec(rules=(RULE,), looks=LooksSpec(max=3))
    apart = levels_of(gates, UsedBudget(looks=2), n_items=600)
    assert apart.met == apart.harm == pytest.approx(0.03363, abs=1e-5)
    assert levels_of(gates, UsedBudget(looks=2, nested=(300, 600)), n_items=600) == apart
    assert levels_of(gates, UsedBudget(looks=9, nested=(1,) * 9), n_items=600) == apart
    once = GatesSpec(rules=(RULE,))
    assert levels_of(once, UsedBudget(), n_items=0) == Levels(pytest.approx(0.05), pytest.approx(0.05))


def test_a_look_spends_no_more_than_looks_by_other_rules_have_left() -> None:
    gates = GatesSpec(rules=(RULE,), looks=LooksSpec(max=2, spend="equal"))
    for spent, left in ((0.01, 0.025), (0.025, 0.025), (0.04, 0.01)):
        found = levels_of(gates, UsedBudget(looks=1, spent=(spent,)), n_items=600)
        assert found == Levels(pytest.approx(left), pytest.approx(left))


def test_the_first_of_many_looks_can_be_judged() -> None:
    gates = GatesSpec(rules=(RULE,), confidence=0.99, looks=LooksSpec(max=20))
    for looks in range(3):  # by the function alone, less than the difference of 1 and the next number
        level = levels_of(gates, UsedBudget(looks=looks, nested=(400, 500)[:looks]), n_items=600)
        assert change_outcome(400, 0, 400, margin=0.0, alpha=level.met).met
        assert not change_outcome(30, 0, 400, margin=0.0, alpha=level.met).met


def declared(at: tuple[int, ...], spend: str) -> GatesSpec:
    return GatesSpec(rules=(RULE,), looks=LooksSpec.model_validate({"at": at, "spend": spend}))


@pytest.mark.parametrize("spend", ["obrien_fleming", "equal"])
@pytest.mark.parametrize("at", [(60, 120), (248, 496, 744), (50, 60, 400), (30, 300, 310, 900)])
def test_declared_looks_keep_the_error_whichever_of_them_are_taken(at: tuple[int, ...], spend: str) -> None:
    """An equal candidate with any first look, resumed at any later ones: the chance that one of them promotes it."""
    gates, generator, n_runs = declared(at, spend), np.random.default_rng(at), 20_000
    terms = Terms(rules="", alpha=gates.alpha, looks=len(at), spend=gates.looks.spend, at=at)
    steps = np.diff([0, *at])
    for discordance in (0.05, 0.2):
        cells = [discordance / 2, discordance / 2, 1 - discordance]
        drawn = np.stack([generator.multinomial(n, cells, n_runs) for n in steps], axis=1).cumsum(axis=1)
        for taken in (places for n in range(1, len(at) + 1) for places in combinations(range(len(at)), n)):
            promoted = np.zeros(n_runs, np.bool_)
            for number, place in enumerate(taken):
                before = tuple(at[each] for each in taken[:number])
                used = UsedBudget(looks=number, spent=spent_by([[terms]] * number, before), nested=before)
                level = levels_of(gates, used, n_items=at[place]).met
                promoted |= change_outcome(
                    drawn[:, place, 0], drawn[:, place, 1], at[place], margin=0.0, alpha=level
                ).met
            assert promoted.mean() <= 0.0545, taken  # 0.05 and three standard errors


def test_a_first_look_at_the_last_size_has_all_of_the_error_probability() -> None:
    gates = declared((248, 496, 744), "equal")
    assert levels_of(gates, UsedBudget(), n_items=744).met == pytest.approx(0.05)
    assert levels_of(gates, UsedBudget(), n_items=300).met == pytest.approx(0.05 / 3)
    terms = Terms(rules="", alpha=0.05, looks=3, spend="equal", at=(248, 496, 744))
    assert spent_by([[terms], [terms]], [744, 800]) == (pytest.approx(0.05), 0.0)
    # An edit on the same items is the next look, so that the one after it has nothing left.
    assert spent_by([[terms]] * 3, [248, 248, 496]) == pytest.approx((0.05 / 3, 0.05 / 3, 0.05 / 3))
    assert is_spent(gates, UsedBudget(looks=3, spent=spent_by([[terms]] * 3, [248, 248, 496])))


def test_declared_looks_rise_and_count_themselves() -> None:
    assert LooksSpec.model_validate({"at": [10, 20]}).max == 2
    for wrong, message in (({"at": [20, 10]}, "must rise"), ({"at": [10, 20], "max": 3}, "leave `max` out")):
        with pytest.raises(ValidationError, match=message):
            LooksSpec.model_validate(wrong)
