"""Fixtures shared with the ledger's tests."""

from tests.system.flows.ledger.conftest import in_file, kit, ledger, start, tree

__all__ = ["in_file", "kit", "ledger", "start", "tree"]
