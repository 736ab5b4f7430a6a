"""The gate's benchmark, in seconds: its bars, and the same verdicts as the real gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gates import (
    BARS,
    DISCORDANCE,
    MARGIN,
    PEERS,
    SCENARIOS,
    SLICES,
    Tables,
    draw,
    false_pass,
    our_gate,
    promoted_shares,
    year_of_retrains,
)
from schemas.artifacts import Scores
from schemas.gates import ChangeThreshold, GateRule, GatesSpec, SliceGuard
from tasks.assess.gate import GateContext, decide

RULES_ONLY: dict[str, Any] = {"contamination": None, "round_trip": None}

MakeScores = Callable[..., Scores]


@pytest.fixture(scope="module")
def shares() -> dict[str, dict[str, float]]:
    return promoted_shares(n_items=1000, reps=8000, seed=1)


def test_our_gate_meets_its_bars_with_a_thousand_items(shares: dict[str, dict[str, float]]) -> None:
    ours = shares["tunegate improve"]
    assert ours["-3 points"] <= BARS["p_minus3"]
    assert ours["equal"] <= BARS["p_equal"]
    assert ours["+3 points"] >= 0.8
    assert ours["+3, one slice -15"] <= BARS["p_slice"]


def test_no_peer_meets_all_bars(shares: dict[str, dict[str, float]]) -> None:
    for name in PEERS:
        cells = shares[name]
        kept = cells["equal"] <= BARS["p_equal"] and cells["+3 points"] >= 0.8
        assert not (kept and cells["+3, one slice -15"] <= BARS["p_slice"]), name
    # an independent simulation of the same model: a plain comparison promotes an equal candidate 52.8 % of the time
    assert shares["point: mean >= champion"]["equal"] == pytest.approx(0.528, abs=0.03)


@pytest.mark.parametrize(("mode", "n"), [("improve", 900), ("refresh", 900), ("improve", 300)])
def test_simulated_candidates_get_the_verdict_of_the_real_gate(
    mode: str, n: int, make_scores: MakeScores, new_folder: Callable[[], Path]
) -> None:
    change = ChangeThreshold() if mode == "improve" else ChangeThreshold(mode="refresh", margin=MARGIN)
    gates = GatesSpec(
        **RULES_ONLY,
        rules=(GateRule(metric="exact", change_threshold=change),),
        slices=SliceGuard(by=("product",)),
        min_items=50,
    )
    seen = set()
    for number, deltas in enumerate(SCENARIOS.values()):
        tables = draw(np.random.default_rng(number), 4, n, deltas)
        for row in range(4):
            candidate, champion, slices = _answers(tables, row)
            decision = decide(
                candidate=make_scores("tuned", {"exact": candidate}, slices=slices),
                champion=make_scores("champion", {"exact": champion}),
                baselines=(),
                gates=gates,
                context=GateContext(champion_version="1", anchor_version="1"),
                out=new_folder(),
            )
            promoted = bool(our_gate(tables, mode=mode)[row])
            assert (decision.verdict == "PROMOTE") == promoted, (number, row, decision.reason)
            seen.add(promoted)
    assert seen == {True, False}


def _answers(tables: Tables, row: int) -> tuple[list[float], list[float], list[str]]:
    candidate: list[float] = []
    champion: list[float] = []
    slices: list[str] = []
    for column in range(SLICES):
        won, lost, both = (int(part[row, column]) for part in (tables.gained, tables.lost, tables.both))
        rest = tables.n - won - lost - both
        candidate += [1.0] * won + [0.0] * lost + [1.0] * both + [0.0] * rest
        champion += [0.0] * won + [1.0] * lost + [1.0] * both + [0.0] * rest
        slices += [f"product=P{column}"] * tables.n
    return candidate, champion, slices


def test_simulated_answers_disagree_as_often_as_declared() -> None:
    tables = draw(np.random.default_rng(5), 4000, 600, SCENARIOS["equal"])
    assert float((tables.gained + tables.lost).sum(1).mean()) / 600 == pytest.approx(DISCORDANCE, abs=0.002)
    better = draw(np.random.default_rng(5), 4000, 600, SCENARIOS["+3 points"])
    assert float((better.gained - better.lost).sum(1).mean()) / 600 == pytest.approx(0.03, abs=0.001)


def test_the_interval_passes_at_the_margin_at_most_as_often_as_declared_in_the_worst_case() -> None:
    assert max(false_pass(24, 0.015, 0.28), false_pass(42, 0.1, 0.1), false_pass(2000, 0.05, 0.4)) <= 0.0505


def test_a_year_of_retrains_is_repeatable_and_promotes_less_than_a_plain_comparison() -> None:
    first = year_of_retrains(n_items=200, slow_rot=False, reps=20, seed=3)
    assert first == year_of_retrains(n_items=200, slow_rot=False, reps=20, seed=3)
    assert first["tunegate improve"][0] < 1 < first["point: mean >= champion"][0]
