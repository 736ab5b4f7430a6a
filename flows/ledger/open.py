"""Open the ledger and the store that the settings name. Opening reads and creates nothing."""

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.workspace.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of these settings; nothing is read or created yet."""
    return Ledger(settings.home, settings.ledger_url, state=settings.state)


def open_store(settings: Settings) -> Store:
    """Return the store of these settings. A result whose digest the ledger does not have counts as damaged."""
    return Store(settings.home, recorded=open_ledger(settings).digests_of)
