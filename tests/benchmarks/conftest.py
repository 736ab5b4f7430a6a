"""The `make_scores` fixture of the gate's tests."""

from tests.tasks.assess.conftest import make_scores, new_folder  # noqa: F401
