"""Optuna's suggestions depend only on the sweep and on earlier values."""

import math
from typing import Any

from schemas.choice import OptunaSweep
from tasks.train.sweep import suggest

OVER: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "adapter.rank": {"low": 2, "high": 64},
    "adapter.target_modules": ["all-linear", ["q_proj", "v_proj"]],
}
SWEEP = OptunaSweep(kind="optuna", n_trials=24, over=OVER)


def distance(changes: dict[str, Any]) -> float:
    return abs(math.log10(changes["learning_rate"]) + 2.5)


def whole(sweep: OptunaSweep, n_trials: int) -> list[dict[str, Any]]:
    values: list[float | None] = []
    tried = []
    for number in range(n_trials):
        tried.append(suggest(sweep, values, higher_is_better=False))
        values.append(None if number == 2 else distance(tried[-1]))  # one fails
    return tried


def test_the_seed_and_the_direction_decide_and_max_items_does_not() -> None:
    assert whole(SWEEP.model_copy(update={"seed": 1}), 1) != whole(SWEEP, 1)
    assert whole(SWEEP.model_copy(update={"max_items": 7, "price_per_hour": 2.0}), 3) == whole(SWEEP, 3)
    values = [float(number) for number in range(12)]
    assert suggest(SWEEP, values, higher_is_better=True) != suggest(SWEEP, values, higher_is_better=False)


def test_later_trials_are_closer_to_the_optimum() -> None:
    tried = whole(SWEEP, 24)
    startup, rest = tried[:8], tried[8:]
    assert sum(map(distance, rest)) / len(rest) < sum(map(distance, startup)) / len(startup)
    assert min(map(distance, tried)) < 0.1
