"""What Optuna suggests depends on the sweep and on earlier values alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

from schemas.choice import OptunaSweep
from tasks.train.sweep import suggest

OVER: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "adapter.rank": {"low": 2, "high": 64},
    "adapter.target_modules": ["all-linear", ["q_proj", "v_proj"]],
}
SWEEP = OptunaSweep(kind="optuna", n_trials=24, over=OVER)


def far_off(changes: dict[str, Any]) -> float:
    return abs(math.log10(changes["learning_rate"]) + 2.5)


def whole(sweep: OptunaSweep, n_trials: int) -> list[dict[str, Any]]:
    values: list[float | None] = []
    tried = []
    for number in range(n_trials):
        tried.append(suggest(sweep, values, higher_is_better=False))
        values.append(None if number == 2 else far_off(tried[-1]))  # one fails
    return tried


def test_a_sweep_is_the_same_every_time_in_every_process() -> None:
    tried = whole(SWEEP, 6)
    assert all(2 <= each["adapter.rank"] <= 64 and 1e-4 <= each["learning_rate"] <= 1e-1 for each in tried)
    assert {type(each["adapter.rank"]) for each in tried} == {int}
    values = [None if number == 2 else far_off(each) for number, each in enumerate(tried[:5])]
    code = (
        "import sys, json; from schemas.choice import OptunaSweep; from tasks.train.sweep import suggest;"
        "sweep = OptunaSweep.model_validate_json(sys.argv[1]);"
        "print(json.dumps(suggest(sweep, json.loads(sys.argv[2]), higher_is_better=False)))"
    )
    arguments = [SWEEP.model_dump_json(), json.dumps(values)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    assert again == json.loads(json.dumps(tried[5]))
    assert done.stderr == ""  # no lines of its own
