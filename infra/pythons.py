"""`make test-pythons`: the tests on every Python that `pyproject.toml` allows, as far as this machine has or gets it.

Each version has an environment of its own under `.pythons/`, with the locked requirements. VERSIONS=3.12,3.13: only
these. TESTS=PATH: only these tests. Exit code 1 if tests fail or an environment cannot be built; a version that is
neither here nor can be downloaded is listed and skipped.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.measure import MissingError, find_python

PROJECT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).with_name("uv")
MARKS = "not campaign and not gpu"


def allowed_versions() -> list[str]:
    """The versions that `requires-python` in `pyproject.toml` allows."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    first, end = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    return [f"3.{minor}" for minor in range(first, end)]


def find(version: str) -> str | None:
    """An interpreter of this version that is here, or one that uv downloads."""
    try:
        return find_python(version)
    except MissingError:
        subprocess.run([UV, "python", "install", "--quiet", version], capture_output=True, check=False)
        found = subprocess.run([UV, "python", "find", version], capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else None


def test(version: str, interpreter: str, tests: list[str]) -> bool:
    """Build the environment and run the tests in it; whether both succeeded."""
    folder = PROJECT / ".pythons" / version
    python = folder / "bin" / "python"
    install = [UV, "pip", "install", "--quiet", "--python", python]
    commands = [
        *([] if python.exists() else [[UV, "venv", "--quiet", "--python", interpreter, folder]]),
        [UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", "requirements.lock"],
        [*install, "--no-deps", "--no-build-isolation", "--editable", "."],
        [python, "-m", "pytest", "-q", "-n", "logical", "--dist", "worksteal", "-m", MARKS, *tests],
    ]  # fmt: skip
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "VIRTUAL_ENV": str(folder)}
    return all(subprocess.run(command, cwd=PROJECT, env=environ, check=False).returncode == 0 for command in commands)


def main() -> int:
    """Test each version and print one line for each at the end."""
    versions = os.environ.get("VERSIONS", "").replace(",", " ").split() or allowed_versions()
    tests = os.environ.get("TESTS", "").split() or ["--ignore=tests/system"]
    results = {}
    for version in versions:
        interpreter = find(version)
        print(f"== Python {version}: {interpreter or 'not here, and uv cannot download it'}", flush=True)
        if interpreter is None:
            results[version] = "skipped: no interpreter"
        else:
            results[version] = "passed" if test(version, interpreter, tests) else "FAILED"
    print("\n".join(f"Python {version}: {result} ({' '.join(tests)})" for version, result in results.items()))
    return int("FAILED" in results.values())


if __name__ == "__main__":
    sys.exit(main())
