"""Kernels are compiled once and cached in a writable folder; without one, they still run."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.compute.kernels import kernel, prefetch

SOURCE = """
import numpy as np
from tasks.compute.kernels import kernel, part

@part()
def times(value):
    return value * np.int64(3)

@kernel()
def add_up(values):
    total = np.int64(0)
    for i in range(values.shape[0]):
        total += times(values[i])
    return total
"""


def load(folder: Path) -> Any:
    """Import the module of a folder as a new process would."""
    folder.mkdir(exist_ok=True)
    (folder / "sums.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("sums", folder / "sums.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(folder: Path) -> Any:
    add_up = load(folder).add_up
    assert add_up(np.array([1, 2, 4])) == 21
    return add_up


def test_a_cached_kernel_is_loaded_instead_of_compiled(tmp_path: Path) -> None:
    first, again = check(tmp_path / "own"), check(tmp_path / "own")
    assert len(list((tmp_path / "own" / "__pycache__").glob("*.nbc"))) == 1
    assert sum(first.stats.cache_misses.values()) == 1
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_folder_that_cannot_be_written_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__pycache__").write_text("a file where the folder should be")
    check(tmp_path / "own")
    assert len(list((tmp_path / "home" / "numba").rglob("*.nbc"))) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own" / "__pycache__"))
    assert sum(check(tmp_path / "own").stats.cache_hits.values()) == 0


def test_a_kernel_its_parts_and_its_constants_are_in_one_file(project: Path) -> None:
    """numba notices only changes in the kernel's own file and would keep old constants of another."""
    files = [
        path for path in (project / "tasks").rglob("*.py") if "from tasks.compute.kernels import" in path.read_text()
    ]
    assert len(files) >= 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module in ("__future__", "typing", "tasks.compute.kernels"), path
            elif isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= {"math", "numpy"}, path


@kernel(reorders=True)
def add_ahead(values: Any, total: Any) -> int:
    total[0] = np.float32(0)
    for i in range(values.shape[0]):
        if i % 16 == 0:
            prefetch(values, i + 4096)
        total[0] += values[i]
    return 0


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_sums_in_any_order_keep_nan_and_infinity(odd: float) -> None:
    values, total = np.ones(1000, np.float32), np.zeros(1, np.float32)
    add_ahead(values, total)
    assert total[0] == 1000
    values[777] = odd
    add_ahead(values, total)
    assert np.array_equal(total[0], np.float32(odd), equal_nan=True)
