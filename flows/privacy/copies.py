"""Copies of files from afar that hold rows of forgotten customers: they lie here while a run reads them, and no longer.

The file itself is its owner's: fetched again, it brings the rows back, and extraction leaves them out. Called at the
end of a run by `flows/ingest.py`, and by `remove.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.privacy.graph import Graph
from flows.privacy.index import COPIED, Indexed, published, update_index
from flows.settings import Settings, open_ledger
from schemas.forget import Holding
from tasks.curate.ingest.whose import UNREAD, all_copies
from tasks.files import sync_directory
from tasks.forget.hashes import Forgotten, KeyedHash
from tasks.forget.holders import look_up


def let_go(settings: Settings, folder: Path, forgotten: Forgotten) -> None:
    """Remove the copies below the source's folder that hold rows of these customers, or rows that nobody could read."""
    if not any(folder in copy.parents for copy in all_copies(settings.home / "ingest")):
        return
    index = update_index(settings, Graph(settings.home, open_ledger(settings)), forgotten.hashes, skip_locked=True)
    owners = [*sorted(forgotten.owners), _nobody(forgotten.hashes)]
    for copy in _held(settings.home, index, owners):
        if folder in copy.parents:
            copy.unlink()
            sync_directory(copy.parent)


def unread_copies(home: Path, index: Path, hashes: KeyedHash) -> list[Holding]:
    """Copies with rows that nobody could read: they may be anybody's."""
    told = "has rows that nobody could read; the next run fetches it anew"
    return [
        Holding(kind="landed", place=copy.relative_to(home).as_posix(), fate="removed", told=told)
        for copy in _held(home, index, [_nobody(hashes)])
    ]


def _held(home: Path, index: Path, owners: Sequence[str]) -> list[Path]:
    found = {Indexed.of(held.file) for held in look_up(index, owners)}
    keys = {entry.key for entry in found if entry.step == COPIED}
    return [place for step, key, place in published(home) if step == COPIED and key in keys]


def _nobody(hashes: KeyedHash) -> str:
    return hashes.of("customer", UNREAD)
