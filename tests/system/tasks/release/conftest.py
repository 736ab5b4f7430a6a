"""Fixtures shared with tests/tasks/release."""

from tests.tasks.release.conftest import client, make_bundle, make_record, store_home, uri
