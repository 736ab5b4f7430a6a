"""The tests of the metrics of a ledger in a file, repeated with Postgres."""

from dataclasses import replace

import pytest

from tests.flows.views.test_metrics import test_runs_champions_and_what_waits_are_exported
from tests.support.place import Place
from tests.support.place import place as place_in_a_file
from tests.support.postgres import Postgres


@pytest.fixture
def place(place_in_a_file: Place, postgres: Postgres) -> Place:
    """A home folder with its ledger in Postgres."""
    place_in_a_file.settings = replace(place_in_a_file.settings, ledger_url=postgres.fresh())
    return place_in_a_file
