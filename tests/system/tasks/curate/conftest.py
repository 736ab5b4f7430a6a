"""A fixture shared with tests/tasks/curate."""

from tests.tasks.curate.conftest import make_tickets
