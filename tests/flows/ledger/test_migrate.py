"""A ledger moves to another place with its history."""

import pytest

from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, ledger_digest
from schemas.errors import StorageError
from tests.support.filled_ledger import fill


def test_a_ledger_with_runs_is_not_overwritten(ledger, kit, tmp_path):
    fill(ledger, kit, (1,))
    source = Ledger(tmp_path / "other")
    fill(source, kit, (1, 2))
    before = ledger_digest(ledger)
    with pytest.raises(StorageError, match=r"TG0531.*runs, steps, shown_items, candidates"):
        copy_ledger(source, ledger)
    assert ledger_digest(ledger) == before
