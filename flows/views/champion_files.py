"""Check that the champion's files are those of its promotion."""

import orjson

from flows.ledger.history import last_move
from flows.ledger.ledger import Ledger
from schemas.artifacts import Artifact, ChampionRef, CheckedRef
from schemas.errors import StorageError
from tasks.storage.sealed_folder import verify


def missing_files(ledger: Ledger, name: str) -> str:
    """Return the champion's folder that is missing; empty if all exist and match the promotion.

    Raises:
        StorageError: TG0510, a file is damaged; TG0549, the files are not those of the promotion.
    """
    champion = ledger.current(name)
    if champion is not None:
        for part in (champion.files, champion.judged):
            if not part.root.is_dir():
                return str(part.root)
        check_champion(ledger, name)
    return ""


def check_champion(ledger: Ledger, name: str) -> None:
    """Compare bundle and weights, or stored results, with the promotion's digests.

    Rewrites by `forget` are recorded and allowed.

    Raises:
        StorageError: TG0510, a file is damaged or gone; TG0549, the files are not those of the promotion.
    """
    champion, event = ledger.current(name), last_move(ledger.history(name), name)
    if champion is None or event is None:
        return
    digests = orjson.loads(event.evidence) if event.evidence else {}
    files = "results" if isinstance(champion, CheckedRef) else "bundle"
    digests[files] = event.bundle_digest
    parts: dict[str, Artifact] = {files: champion.files}
    if isinstance(champion, ChampionRef):
        parts["trained"] = champion.trained
    for what, part in parts.items():
        if digests.get(what) and verify(part.root) not in ledger.rewritten(digests[what]):
            raise StorageError(
                f"the {what} of v{champion.version} is not the one that was promoted at {event.at}",
                code="TG0549",
                where=str(part.root),
                hint="restore it from a backup, or go back to an earlier champion: `tunegate model rollback PIPELINE`",
            )
