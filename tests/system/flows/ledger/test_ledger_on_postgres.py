"""The tests of the ledger in a file, repeated with a ledger in Postgres."""

from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from tests.flows.ledger.test_champions import *
from tests.flows.ledger.test_erasures import *
from tests.flows.ledger.test_journal import *
from tests.flows.ledger.test_migrate import (
    test_a_ledger_of_the_second_version_gets_a_journal_of_every_row,
    test_a_ledger_of_the_third_version_keeps_its_rows_and_takes_the_verdict_uncompared,
    test_a_ledger_with_runs_is_not_overwritten,
)
from tests.flows.ledger.test_promotions import *
from tests.flows.ledger.test_runs import *
from tests.support.postgres import Postgres


@pytest.fixture
def ledger(tmp_path: Path, postgres: Postgres) -> Ledger:
    """An empty ledger in Postgres."""
    return Ledger(tmp_path / "home", postgres.fresh())
