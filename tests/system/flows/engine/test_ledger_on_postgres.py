"""Whatever holds for the ledger in a file holds for the one in Postgres: the same tests, again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.engine.ledger import Ledger
from tests.flows.engine.test_champions import *
from tests.flows.engine.test_forgettings import *
from tests.flows.engine.test_ledger_journal import *
from tests.flows.engine.test_ledger_migrate import (
    test_a_ledger_in_use_is_not_copied_over,
    test_a_ledger_of_the_second_version_gets_a_journal_of_every_row,
)
from tests.flows.engine.test_promotions import *
from tests.flows.engine.test_runs import *
from tests.support.postgres import Postgres


@pytest.fixture
def ledger(tmp_path: Path, postgres: Postgres) -> Ledger:
    """An empty ledger in Postgres."""
    return Ledger(tmp_path / "home", postgres.fresh())
