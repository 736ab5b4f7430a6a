"""The house keeps its own rules: tree, lock, names, settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

OUR_FOLDERS = ("flows", "tasks", "schemas")


def test_no_file_of_flows_hides_an_importable_package(project: Path) -> None:
    # Prefect path entry points put flows/ first on sys.path.
    for path in (project / "flows").glob("*.py"):
        if path.stem == "__init__":
            continue
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({path.stem!r}) is not None)"
        done = subprocess.run([sys.executable, "-I", "-c", code], check=False)
        assert done.returncode == 0, f"flows/{path.name} hides the package {path.stem}"


def test_the_tree_in_the_readme_is_the_tree_on_disk(project: Path) -> None:
    block = (project / "README.md").read_text().split("<!-- tree -->")[1]
    told = set(re.findall(r"^((?:[\w.-]+/)+)", block, re.M))
    tracked = subprocess.run(["git", "ls-files"], cwd=project, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout: the tree on disk cannot be told from generated files")
    folders = {
        str(parent) + "/"
        for line in tracked.splitlines()
        for parent in Path(line).parents
        if str(parent) != "." and parent.parts[0] in {*OUR_FOLDERS, "infra", "docs"}
    }
    assert folders == {name for name in told if name.split("/")[0] in {*OUR_FOLDERS, "infra", "docs"}}


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "prefect", "mlflow", "duckdb", "pandas", "pandera", "sklearn", "numpy"]
    code = f"import sys, flows.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
