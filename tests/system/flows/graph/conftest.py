"""Fixtures shared with the ledger's tests."""

from tests.system.flows.ledger.conftest import kit, start
