"""The repository follows its own rules: importable names, a light command line."""

from __future__ import annotations

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


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "prefect", "mlflow", "duckdb", "pandas", "pandera", "sklearn", "numpy"]
    code = f"import sys, flows.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
