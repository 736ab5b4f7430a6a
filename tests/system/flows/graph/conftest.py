"""Fixtures of the ledger's tests that these tests use too."""

from __future__ import annotations

from tests.system.flows.ledger.conftest import in_file, kit, ledger, start, tree

__all__ = ["in_file", "kit", "ledger", "start", "tree"]
