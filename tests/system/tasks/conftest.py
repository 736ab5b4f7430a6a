"""Fixtures shared with tests/tasks."""

from tests.tasks.conftest import new_folder
