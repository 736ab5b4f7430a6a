"""Fixtures shared with the ledger's tests."""

from tests.flows.ledger.conftest import kit, tree

__all__ = ["kit", "tree"]
