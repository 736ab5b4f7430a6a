"""Call `tunegate gate check` from another program: a script, a task of Airflow, an asset of Dagster.

Needs Python alone, not the packages of tunegate: copy this file next to yours. `TUNEGATE` in the environment is the
command, if it is not on the path: tunegate may live in an environment of its own. What the JSON has is in
`schemas/gate-check.schema.json`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

VERDICTS = {0: "PROMOTE", 5: "BLOCK", 8: "HOLD", 9: "ERROR", 10: "UNCOMPARED"}
"""Exit codes of a verdict. Every other one is a failure of the call itself."""


class NoVerdictError(RuntimeError):
    """The call failed, and there is no verdict."""


def check(name: str, candidate: Path, *more: str, timeout_s: float = 600.0) -> dict[str, Any]:
    """Judge the candidate's results against the champion of the name.

    Args:
        more: Further arguments, such as `--champion FILE` the first time, or `--rules FILE`.

    Returns:
        The JSON of the command: `verdict`, `reason`, `findings`, `recorded` and more.

    Raises:
        NoVerdictError: there is no verdict; no caller may go on as if there were one.
    """
    command = [*shlex.split(os.environ.get("TUNEGATE", "tunegate")), "gate", "check", name]
    command += ["--candidate", str(candidate), *more, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoVerdictError(f"{command[0]} did not run: {error}") from error
    if done.returncode not in VERDICTS or not done.stdout.strip():
        raise NoVerdictError(f"exit code {done.returncode}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:  # such as a gate that was weakened, with --no-weaker
        raise NoVerdictError(f"exit code {done.returncode}: {found['error']['message']}")
    if found["version"] != 1:
        raise NoVerdictError(f"the result has version {found['version']}, and this file reads version 1")
    return found
