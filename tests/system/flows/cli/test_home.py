"""A read-only state folder: every command answers, or reports that it cannot write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forgetful_workspace import CUSTOMER, KEY, build

COMMANDS = (
    ("runs",), ("status",), ("ops", "doctor"), ("ops", "reconcile"), ("report", "--last", "small"),
    ("model", "history", "small"), ("model", "champion", "small"), ("plan", "small"),
    ("data", "forget", CUSTOMER, "--plan"), ("run", "small"),
)  # fmt: skip
SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.support.commands import run_here
results = []
for words in json.loads(sys.argv[1]):
    done = run_here(words, cwd=Path(sys.argv[2]), environ=dict(os.environ))
    results.append([done.returncode, done.stdout, done.stderr])
print(json.dumps(results))
"""


def test_a_read_only_state_folder_is_not_an_internal_error(tmp_path: Path) -> None:
    as_owner = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    if as_owner and shutil.which("setpriv") is None:
        pytest.skip("root can write anywhere, and setpriv is missing")
    os.environ["VQ_KEY"] = KEY
    try:
        here = build(tmp_path)
        home = here.settings.home
        for path in (tmp_path, home, *home.rglob("*")):
            path.chmod(0o500 if path.is_dir() else 0o400)
        command = [*as_owner, sys.executable, "-c", SCRIPT, json.dumps(COMMANDS), str(tmp_path)]
        environ = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True, timeout=500)
    finally:
        del os.environ["VQ_KEY"]
        for path in (tmp_path, *tmp_path.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
    for words, (code, out, error) in zip(COMMANDS, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert "TG0001" not in error, (words, error)
        assert code == 0 or "TG" in out + error, (words, code, error)
        if words in (("ops", "reconcile"), ("run", "small")):
            assert code != 0, words
