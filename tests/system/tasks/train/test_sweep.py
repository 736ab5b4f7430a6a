"""Optuna's suggestions depend only on the sweep and on earlier values."""

import json
import subprocess
import sys

from tests.tasks.train.test_sweep import SWEEP, distance, whole


def test_a_sweep_is_the_same_in_every_process() -> None:
    tried = whole(SWEEP, 6)
    assert all(2 <= each["adapter.rank"] <= 64 and 1e-4 <= each["learning_rate"] <= 1e-1 for each in tried)
    assert {type(each["adapter.rank"]) for each in tried} == {int}
    values = [None if number == 2 else distance(each) for number, each in enumerate(tried[:5])]
    code = (
        "import sys, json; from schemas.choice import OptunaSweep; from tasks.train.sweep import suggest;"
        "sweep = OptunaSweep.model_validate_json(sys.argv[1]);"
        "print(json.dumps(suggest(sweep, json.loads(sys.argv[2]), higher_is_better=False)))"
    )
    arguments = [SWEEP.model_dump_json(), json.dumps(values)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    assert again == json.loads(json.dumps(tried[5]))
    assert done.stderr == ""  # prints nothing
