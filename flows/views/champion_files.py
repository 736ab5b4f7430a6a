"""Are the champion's files those of the event by which it is champion? For `tunegate model history` and `doctor`."""

from __future__ import annotations

import orjson

from flows.ledger.history import last_move
from flows.ledger.ledger import Ledger
from schemas.errors import StorageError
from tasks.files import verify


def missing_files(ledger: Ledger, name: str) -> str:
    """The champion's folder that is not there; empty when all are, and are what the event says.

    Raises:
        StorageError: TG0510, a file is damaged; TG0549, the files are others than the event's.
    """
    champion = ledger.champion(name)
    if champion is not None:
        for part in (champion.bundle, champion.trained):
            if not part.root.is_dir():
                return str(part.root)
        check_champion(ledger, name)
    return ""


def check_champion(ledger: Ledger, name: str) -> None:
    """Compare bundle and weights with the digests of the event; what `forget` wrote anew is on record.

    Raises:
        StorageError: TG0510, a file is damaged or gone; TG0549, the files are others than the event's.
    """
    champion, event = ledger.champion(name), last_move(ledger.history(name), name)
    if champion is None or event is None:
        return
    told = {"bundle": event.bundle_digest, **(orjson.loads(event.evidence) if event.evidence else {})}
    for what, part in (("bundle", champion.bundle), ("trained", champion.trained)):
        if told.get(what) and verify(part.root) not in ledger.rewritten(told[what]):
            raise StorageError(
                f"the {what} of v{champion.version} is not the one of the event of {event.at}",
                code="TG0549",
                where=str(part.root),
                hint="put it back from a backup, or go back to an earlier champion: `tunegate model rollback PIPELINE`",
            )
