"""Remove a customer: what goes is written to the ledger first, then it goes, then it is looked for once more.

Killed at any point and run again it comes to the same end: what the journal names and still lies there goes. Holds no
lock; its callers do (`flows/privacy/forget.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flows.engine.ledger import Ledger
from flows.engine.rewrite import RewritingStore
from flows.privacy.certificate import write_certificate
from flows.privacy.copies import unread_copies
from flows.privacy.graph import digest_at
from flows.privacy.trace import LEFTOVERS, PAGES, Tracer, leftovers
from flows.settings import Settings, open_ledger
from schemas.errors import StorageError
from schemas.forget import Certificate, Holding, Holdings, Tombstone
from tasks.failpoint import reach
from tasks.files import sync_directory
from tasks.forget.hashes import Forgotten, KeyedHash
from tasks.forget.tables import empty_answers, is_split, rewrite_split

PASSES = 3
"""Looks at the workspace until nothing is found: each removes what it finds."""


def remove_customer(settings: Settings, tombstone: Tombstone, hashes: KeyedHash) -> Certificate:
    """Remove everything that is held of the customer, mark what learned from them, and write the certificate.

    Raises:
        StorageError: TG0567, rows are still found after everything that held them has gone.
        LockedError: TG0551, another process has a database of the workspace open.
    """
    forgotten = Forgotten(hashes, owners=tombstone.owners, tickets=tombstone.tickets)
    ledger = open_ledger(settings)
    began = ledger.begin_forgetting(tombstone.id)
    tracer = Tracer(settings, forgotten)
    held = tracer.holdings(tombstone.id, forgotten)
    ledger.mark_versions(tombstone.id, held.versions)
    for _ in range(PASSES):
        loose = (*leftovers(settings.home), *unread_copies(settings.home, tracer.index, hashes))
        ledger.note_going(tombstone.id, began, (*held.to_do, *_yours(held), *loose))
        reach("forget.noted")
        _remove_noted(settings, ledger, tombstone.id, began, forgotten)
        left = Tracer(settings, forgotten).holdings(tombstone.id, forgotten, sources=False)
        if not left.to_do:
            break
        held = left
    else:
        raise StorageError(
            f"rows of the customer are still held: {', '.join(each.place for each in left.to_do[:5])}",
            code="TG0567",
            where=str(settings.home),
            hint="run it again; if it comes to the same, remove what is named by hand",
        )
    certificate = write_certificate(settings, ledger, tombstone, began, left.versions)
    reach("forget.certified")
    ledger.end_forgetting(tombstone.id, began)
    return certificate


def _yours(held: Holdings) -> list[Holding]:
    return [each for each in held.held if each.fate == "yours"]


def _remove_noted(settings: Settings, ledger: Ledger, tombstone: str, began: str, forgotten: Forgotten) -> None:
    store = RewritingStore(settings.home)
    for line in ledger.journal(tombstone, began):
        if line.event != "goes" or line.fate == "yours":
            continue
        _remove(settings, store, ledger, line.kind, line.place, line.fate, line.digest, forgotten)
        reach("forget.removed")


def _remove(
    settings: Settings, store: RewritingStore, ledger: Ledger, kind: str, place: str, fate: str, digest: str,
    forgotten: Forgotten,
) -> None:  # fmt: skip
    from tasks.cluster.depot import clear_marked
    from tasks.curate.ingest.whose import remove_landed
    from tasks.forget.databases import rewrite_feedback, rewrite_warehouse

    path = settings.home / place
    if place in LEFTOVERS:
        clear_marked(path)  # what trainings on a cluster have left on its storage
        store.clear(place)
    elif kind == "result":
        _, step, key = place.split("/")
        if digest_at(path) != digest:
            return  # gone, or written anew already
        if fate == "removed":
            store.discard(step, key)
        else:
            made = store.rewrite(
                step, key, _rewriting(path, forgotten), note=partial(ledger.note_rewrite, step, key, digest)
            )
            ledger.replace_digest(place, digest, made)
    elif kind == "landed" and fate == "removed":
        path.unlink(missing_ok=True)
    elif kind == "snapshot":
        _remove_folder(path)
    elif kind == "report":
        for page in PAGES:
            (path / page).unlink(missing_ok=True)
    elif path.is_file():
        rewrite = {"warehouse": rewrite_warehouse, "feedback": rewrite_feedback, "landed": remove_landed}[kind]
        rewrite(path, forgotten)


def _rewriting(folder: Path, forgotten: Forgotten) -> Callable[[Path, Path], dict[str, Any]]:
    if is_split(folder):
        return lambda old, new: rewrite_split(old, new, forgotten)

    def without_texts(old: Path, new: Path) -> dict[str, Any]:
        empty_answers(old, new)
        return {}

    return without_texts


def _remove_folder(folder: Path) -> None:
    """In one rename, so that nobody reads a half."""
    aside = folder.with_name(f".{folder.name}.tmp")
    if aside.is_dir():  # of a process that was killed here
        shutil.rmtree(aside)
    if folder.is_dir():
        folder.rename(aside)
        shutil.rmtree(aside)
        sync_directory(folder.parent)
