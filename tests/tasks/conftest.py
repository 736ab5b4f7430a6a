"""Fixtures that all of tests/tasks share."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[], Path]:
    """A function that returns a new, empty directory at each call."""
    numbers = itertools.count()

    def new() -> Path:
        folder = tmp_path / f"out{next(numbers)}"
        folder.mkdir()
        return folder

    return new
