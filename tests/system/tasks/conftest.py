"""Fixtures shared with tests/tasks."""

from tests.tasks.conftest import desk, new_folder
