"""Fixtures shared with tests/tasks/curate."""

from tests.tasks.curate.conftest import banking77, bitext, make_splits, make_tickets, rows_of
