"""Fixtures shared with tests/tasks."""

from __future__ import annotations

from tests.tasks.conftest import desk, new_folder
