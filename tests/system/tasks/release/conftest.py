"""Fixtures shared with tests/tasks/release."""

from tests.tasks.release.conftest import client, empty_store, make_record, store_home, uri
