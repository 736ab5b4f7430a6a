"""A state folder that cannot be used: every command answers, or reports in one line what is wrong with it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forgetful_workspace import CUSTOMER, KEY, build

READS = (
    ("runs",), ("status",), ("show", "run-1"), ("ops", "doctor"), ("ops", "metrics"), ("report", "--last", "small"),
    ("model", "history", "small"), ("model", "champion", "small"), ("plan", "small"), ("validate",),
    ("data", "forget", CUSTOMER, "--plan"), ("data", "funnel", "small"), ("data", "sample", "small"),
    ("data", "lineage", "t-1"), ("gate", "explain", "small"),
    ("study", "cost", "small"), ("data", "dictionary"),
)  # fmt: skip
WRITES = (
    ("run", "small"), ("data", "curate", "small"), ("model", "rollback", "small", "--reason", "r", "--by", "b"),
    ("ops", "reconcile"), ("ops", "tick", "small"), ("model", "feedback", "small", "none.jsonl"),
    ("ops", "migrate", "--ledger-to", "copy"),
)  # fmt: skip
UNUSABLE = ("read_only", "foreign", "full")
SCRIPT = """
import json, os, sys
from pathlib import Path
from tests.support.commands import run_here
results = {}
for kind, words in json.loads(sys.argv[1]):
    done = run_here(words, cwd=Path(sys.argv[2]) / kind, environ=dict(os.environ))
    results[" ".join([kind, *words])] = [done.returncode, done.stdout, done.stderr]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str, str]]]:
    """What each command says with each kind of folder, as a user without root's rights to pass over permissions."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can give folders to others and mount a full disk, and setpriv takes its rights away")
    as_owner = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    top = tmp_path_factory.mktemp("homes")
    environ = {
        **os.environ, "VQ_KEY": KEY, "PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": "",
        "TUNEGATE_CACHE": str(top / "cache"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQ_KEY", KEY)
        for kind in (*UNUSABLE, "missing"):
            (top / kind).mkdir()
            home = build(top / kind).settings.home
            if kind == "missing":
                shutil.rmtree(home)
    full = top / "full" / home.name
    for path in ((top / "read_only"), *(top / "read_only").rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)
    for path in (top / "foreign" / home.name, *(top / "foreign" / home.name).rglob("*")):
        os.chown(path, 65534, 65534)
    prepare = (
        f"cp -a {full} {top}/copy && mount -t tmpfs -o size=$(du -sk {full} | cut -f1)k,mode=700 none {full} && "
        f"cp -a {top}/copy/. {full}; head -c 1G /dev/zero > {full}/filler; exec \"$@\""
    )  # fmt: skip
    commands = [(kind, words) for kind in (*UNUSABLE, "missing") for words in (*READS, *WRITES)]
    command = [
        "unshare", "--mount", "sh", "-c", prepare, "sh", *as_owner, sys.executable, "-c", SCRIPT, json.dumps(commands),
        str(top),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    yield json.loads(done.stdout.splitlines()[-1])
    for path in (top, *top.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)


@pytest.mark.parametrize("kind", [*UNUSABLE, "missing"])
def test_every_command_answers_or_ends_with_one_clear_error(
    kind: str, results: dict[str, tuple[int, str, str]]
) -> None:
    for words in (*READS, *WRITES):
        code, out, error = results[" ".join([kind, *words])]
        said = (words, code, out, error)
        assert "Traceback" not in error, said
        assert "TG0001" not in error, said  # an internal error
        errors = [line for line in error.splitlines() if line.startswith("error")]
        assert code == 0 or len(errors) == 1 or (words == ("ops", "doctor") and "\nbad " in out), said
        if kind in UNUSABLE and words in (("run", "small"), ("data", "curate", "small")):
            assert code != 0, said
