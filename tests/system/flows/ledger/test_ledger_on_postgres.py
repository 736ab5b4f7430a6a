"""The tests of the ledger in a file, repeated with a ledger in Postgres."""

from pathlib import Path

import pytest

from flows.ledger.ledger import Ledger
from tests.flows.ledger.test_champions import *
from tests.flows.ledger.test_erasures import *
from tests.flows.ledger.test_journal import *
from tests.flows.ledger.test_migrate import *
from tests.flows.ledger.test_promotions import *
from tests.flows.ledger.test_runs import *
from tests.support.postgres import Postgres


@pytest.fixture
def ledger(tmp_path: Path, postgres: Postgres) -> Ledger:
    """An empty ledger in Postgres."""
    return Ledger(tmp_path / "home", postgres.fresh())
