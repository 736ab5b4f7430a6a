"""The ledger and the store that settings name. Opening them reads and makes nothing."""

from __future__ import annotations

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.workspace.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """The ledger of these settings; nothing is read or made yet."""
    return Ledger(settings.home, settings.ledger_url, state=settings.state)


def open_store(settings: Settings) -> Store:
    """The store of these settings: a result whose digest is not one that the ledger has counts as damaged."""
    return Store(settings.home, recorded=open_ledger(settings).digests_of)
