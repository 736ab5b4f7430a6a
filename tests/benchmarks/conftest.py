"""The scores that tests of the gate make."""

from __future__ import annotations

from tests.tasks.assess.conftest import make_scores, new_folder  # noqa: F401
