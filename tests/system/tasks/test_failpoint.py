"""Failpoints kill at the named place, and a misspelt name is not mistaken for a survived kill."""

import os
import subprocess
import sys

import pytest

from tasks.storage.failpoint import VARIABLE
from tests.support.project import PROJECT


@pytest.mark.parametrize(("value", "printed"), [("store.sealed", ""), ("store.sealed:3", "1\n2\n")])
def test_the_process_dies_at_the_nth_time(value, printed):
    code = (
        "from tasks.storage.failpoint import reach\n"
        "for n in range(1, 6): reach('store.produced'); reach('store.sealed'); print(n, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, VARIABLE: value, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.returncode == -9
    assert done.stdout == printed
