"""The `make_scores` fixture of the gate's tests."""

from __future__ import annotations

from tests.tasks.assess.conftest import make_scores, new_folder  # noqa: F401
