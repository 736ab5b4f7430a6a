"""The fixtures of tests/tasks."""

from __future__ import annotations

from tests.tasks.conftest import desk, new_folder
