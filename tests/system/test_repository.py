"""The files of flows/ hide no importable package."""

import subprocess
import sys
from pathlib import Path


def test_no_file_of_flows_hides_an_importable_package(project: Path) -> None:
    # Prefect path entry points put flows/ first on sys.path.
    for path in (project / "flows").glob("*.py"):
        if path.stem == "__init__":
            continue
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({path.stem!r}) is not None)"
        done = subprocess.run([sys.executable, "-I", "-c", code], check=False)
        assert done.returncode == 0, f"flows/{path.name} hides the package {path.stem}"
