"""Lint the systemd units with `systemd-analyze verify` and measure how exposed each service is.

Called by `make lint-infra`. Where there is no systemd it says so and is content: the units are for machines that have
it. The programs that the units name are replaced by empty ones, since they are not installed here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

UNITS = Path(__file__).with_name("systemd")
MAX_EXPOSURE = 30
"""Tenths of systemd's measure from 0 to 10, where services without a setting have 9.6."""


def main() -> int:
    """0 when there is nothing to say."""
    if shutil.which("systemd-analyze") is None:
        sys.stdout.write("the systemd units were not linted: there is no systemd-analyze here\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="tunegate-units-") as folder:
        faults = lint(UNITS, Path(folder))
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    return int(bool(faults))


def lint(units: Path, root: Path) -> list[str]:
    """What is wrong with the units, told by systemd as if they were installed below `root`."""
    place = root / "etc" / "systemd" / "system"
    place.mkdir(parents=True)
    for unit in units.iterdir():
        shutil.copy(unit, place)
    names = sorted(unit.name for unit in units.iterdir() if unit.suffix in (".service", ".timer", ".target"))
    for name in names:
        for program in re.findall(r"^Exec\w+=(\S+)", (place / name).read_text(), re.M):
            stub = root / program.lstrip("/")
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.touch(mode=0o755)
    # The machine's own units are the only ones that these refer to besides each other.
    for name in ("network.target", "multi-user.target", "sysinit.target", "basic.target", "shutdown.target",
                 "timers.target", "time-set.target", "time-sync.target"):  # fmt: skip
        (place / name).write_text("[Unit]\n")
    told = _run(["systemd-analyze", "verify", f"--root={root}", "--man=no", *names])
    faults = [line for line in told.splitlines() if any(name in line for name in names)]
    for name in (name for name in names if name.endswith(".service")):
        limit = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager"]
        done = subprocess.run([*limit, str(place / name)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            faults.append(f"{name}: {done.stdout.strip().splitlines()[-1:] or done.stderr.strip()}")
    return faults


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
