"""Fixtures shared with the ledger's tests."""

from tests.flows.ledger.conftest import in_file, kit, ledger, tree

__all__ = ["in_file", "kit", "ledger", "tree"]
