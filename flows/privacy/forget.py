"""Forget a customer, and forget them again after a backup was restored.

What will be removed is recorded in the ledger, then removed, then the workspace is searched once more. A removal that
was killed at any point is finished by the next one, which removes what the journal names and still exists. The
certificate lists what was removed by digest and count, without the customer's name.

Nothing else may use the workspace meanwhile: all pipelines are locked. Every run begins by forgetting customers again
who were forgotten before.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from flows.graph.store import REFERENCE, Store
from flows.ledger.erasures import ErasureRow
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.privacy.index import digest_at, unread_copies
from flows.privacy.keys import all_tombstones, hashes_of, keep_tombstone, load_forgotten, load_hashes, names_of
from flows.privacy.named_rows import lines_of_corrections, rows_in_tables
from flows.privacy.trace import LEFTOVERS, PAGES, Tracer, feedback_databases, leftovers, with_tickets
from flows.workspace.clock import now
from flows.workspace.disk import make_private, named_disk_errors, private_folder, write_private
from flows.workspace.lock import hold
from flows.workspace.ray_cluster import clear_shared
from flows.workspace.settings import Settings
from flows.workspace.temporary import temporary_folder
from schemas.errors import SecurityError, StorageError
from schemas.forget import ForgetCertificate, Holding, Holdings, LearnedVersion, Removal, Tombstone
from schemas.pipeline import DataPipeline
from tasks.privacy.hashes import Forgotten, KeyedHash
from tasks.privacy.results import empty_answers, is_split, rewrite_split
from tasks.storage.failpoint import reach
from tasks.storage.files import sync_directory, write_json
from tasks.storage.sealed_folder import MANIFEST, rename_folder, seal

LOCK_NAME = "forget"
PASSES = 3
"""Searches of the workspace, at most, until nothing is found: each removes what it finds."""
CERTIFICATES = "certificates"


def plan_forgetting(settings: Settings, specs: Iterable[DataPipeline], customer: str, *, root: Path) -> Holdings:
    """Return what is held of the customer and what would be done with it; change nothing but the index.

    Args:
        root: Folder of pipelines.yaml, for the files of `tables` and `curate.corrections`.
    """
    specs = tuple(specs)
    owner, forgotten = hashes_of(customer, specs, load_hashes(settings))
    tracer = Tracer(settings, forgotten)
    if feedback_databases(settings.home) or any(spec.tables or spec.curate.corrections for spec in specs):
        forgotten = with_tickets(tracer, forgotten)
    held = tracer.holdings(owner, forgotten)
    return held.model_copy(update={"held": (*held.held, *_outside(specs, root, forgotten))})


def forget(
    settings: Settings,
    specs: Iterable[DataPipeline],
    customer: str,
    *,
    root: Path,
    reason: str,
    actor: str,
    unknown: bool,
) -> ForgetCertificate:
    """Remove the customer and keep them out.

    Args:
        root: Folder of pipelines.yaml, for the files of `tables` and `curate.corrections`.
        unknown: Also keep out a customer of whom nothing is held.

    Raises:
        SecurityError: TG0833, no reason is given, it names the customer, or nothing is held of them.
        LockedError: a pipeline is running.
    """
    specs = tuple(specs)
    _check_reason(reason, names_of(customer, specs))
    with workspace_lock(settings, specs):
        hashes = load_hashes(settings)
        load_forgotten(settings)  # refuses when earlier tombstones are under another key
        owner, forgotten = hashes_of(customer, specs, hashes)
        known = next((each for each in all_tombstones(settings) if each.id == owner), None)
        tracer = Tracer(settings, forgotten)
        found = tracer.found(sorted(forgotten.owners))
        if not found.rows and known is None and not unknown:
            raise SecurityError(
                "nothing is held of this customer",
                code="TG0833",
                where="forget",
                hint="use the source's id; `--unknown` keeps out a customer who has no tickets yet",
            )
        forgotten = with_tickets(tracer, forgotten)
        outside, tickets = _outside(specs, root, forgotten), forgotten.tickets
        tombstone = Tombstone(
            id=owner, key_id=hashes.key_id, owners=tuple(sorted(forgotten.owners)), tickets=tuple(sorted(tickets)),
            reason=reason, actor=actor, at=now(),
        )  # fmt: skip
        keep_tombstone(settings, tombstone)
        reach("forget.buried")
        kept = next(each for each in all_tombstones(settings) if each.id == owner)
        return remove_customer(settings, kept, hashes, outside=outside)


def _outside(specs: tuple[DataPipeline, ...], root: Path, forgotten: Forgotten) -> tuple[Holding, ...]:
    """What the user has to remove, besides sources."""
    return (*rows_in_tables(specs, root, forgotten), *lines_of_corrections(specs, root, forgotten))


def forget_again(settings: Settings, specs: Iterable[DataPipeline]) -> tuple[ForgetCertificate, ...]:
    """Apply every tombstone again, whatever a backup brought back."""
    with workspace_lock(settings, specs):
        return apply_tombstones(settings)


def apply_tombstones(settings: Settings) -> tuple[ForgetCertificate, ...]:
    """Remove what is held of forgotten customers; if nothing is, only read the index. The caller holds a lock.

    A tombstone that the ledger does not have (it was restored) is applied in full, so that versions are marked again.
    """
    tombstones = all_tombstones(settings)
    everyone = load_forgotten(settings)
    if everyone is None:
        return ()
    ledger = open_ledger(settings)
    known = {each.id: each for each in ledger.tombstones()}
    tracer = Tracer(settings, everyone, skip_locked=True)
    held = tracer.holdings("", everyone, sources=False).to_do
    done = []
    for tombstone in tombstones:
        one = Forgotten(everyone.hashes, owners=tombstone.owners, tickets=tombstone.tickets)
        is_new = known.get(tombstone.id) != tombstone or ledger.is_unfinished(tombstone.id)
        if is_new or (held and tracer.holdings(tombstone.id, one, sources=False).to_do):
            keep_tombstone(settings, tombstone)
            done.append(remove_customer(settings, tombstone, everyone.hashes))
    return tuple(done)


@contextmanager
def workspace_lock(settings: Settings, specs: Iterable[DataPipeline]) -> Iterator[None]:
    """Keep every pipeline from running during the block.

    Raises:
        LockedError: one is running; the message names it.
    """
    ledger = open_ledger(settings)
    with ExitStack() as stack:
        for name in (LOCK_NAME, *sorted(spec.name for spec in specs)):
            stack.enter_context(ledger.pipeline_lock(name, wait_s=0, run_id="tunegate data forget"))
        yield


def _check_reason(reason: str, names: Iterable[str]) -> None:
    if not reason.strip():
        raise SecurityError(
            "a removal needs a reason", code="TG0833", where="forget", hint="--reason 'request of 3 May, case 17'"
        )
    if any(name in reason for name in names):
        raise SecurityError(
            "the reason names the customer, and reasons are kept",
            code="TG0833",
            where="forget",
            hint="name the request or the case instead",
        )


def remove_customer(
    settings: Settings, tombstone: Tombstone, hashes: KeyedHash, *, outside: tuple[Holding, ...] = ()
) -> ForgetCertificate:
    """Remove everything that is held of the customer, mark what learned from them, and write the certificate.

    Args:
        outside: What the certificate lists as the user's to remove, besides sources.

    Raises:
        StorageError: TG0566, rows are still found after everything that held them was removed.
        LockedError: TG0520, another process has a database of the workspace open.
    """
    forgotten = Forgotten(hashes, owners=tombstone.owners, tickets=tombstone.tickets)
    ledger = open_ledger(settings)
    began = ledger.begin_erasure(tombstone.id)
    tracer = Tracer(settings, forgotten)
    held = tracer.holdings(tombstone.id, forgotten)
    ledger.mark_versions(tombstone.id, held.versions)
    for _ in range(PASSES):
        yours = [each for each in held.held if each.fate == "yours"]
        loose = (*leftovers(settings.home), *unread_copies(settings.home, tracer.index, hashes))
        ledger.record_removals(tombstone.id, began, (*held.to_do, *yours, *outside, *loose))
        reach("forget.noted")
        _remove_noted(settings, ledger, tombstone.id, began, forgotten)
        left = Tracer(settings, forgotten).holdings(tombstone.id, forgotten, sources=False)
        if not left.to_do:
            break
        held = left
    else:
        raise StorageError(
            f"rows of the customer are still held: {', '.join(each.place for each in left.to_do[:5])}",
            code="TG0566",
            where=str(settings.home),
            hint="run it again; if that does not help, remove these by hand",
        )
    certificate = write_certificate(settings, ledger, tombstone, began, left.versions)
    reach("forget.certified")
    ledger.end_erasure(tombstone.id, began)
    return certificate


def _remove_noted(settings: Settings, ledger: Ledger, tombstone: str, began: str, forgotten: Forgotten) -> None:
    store = RewritingStore(settings.home)
    for line in ledger.journal(tombstone, began):
        if line.event != "goes" or line.fate == "yours":
            continue
        _remove(settings, store, ledger, line, forgotten)
        reach("forget.removed")


def _remove(settings: Settings, store: RewritingStore, ledger: Ledger, line: ErasureRow, forgotten: Forgotten) -> None:
    from tasks.privacy.databases import rewrite_feedback, rewrite_warehouse
    from tasks.sources.row_owner import remove_landed

    kind, place, digest = line.kind, line.place, line.digest
    path = settings.home / place
    if place in LEFTOVERS:
        clear_shared(path)
        store.clear(place)
    elif kind == "result":
        _, step, key = place.split("/")
        if digest_at(path) != digest:
            return  # gone, or rewritten already
        if line.fate == "removed":
            store.discard(step, key)
        else:
            made = store.rewrite(
                step, key, _rewriting(path, forgotten), note=partial(ledger.note_rewrite, step, key, digest)
            )
            ledger.replace_digest(place, digest, made)
    elif kind == "landed" and line.fate == "removed":
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
    # In one rename, so that no reader sees half of it.
    aside = folder.with_name(f".{folder.name}.tmp")
    if aside.is_dir():  # of a process that was killed here
        shutil.rmtree(aside)
    if folder.is_dir():
        folder.rename(aside)
        shutil.rmtree(aside)
        sync_directory(folder.parent)


def write_certificate(
    settings: Settings, ledger: Ledger, tombstone: Tombstone, began: str, versions: Iterable[LearnedVersion]
) -> ForgetCertificate:
    """Write it from this removal's journal, next to the tombstones; repeated, it gives the same file."""
    journal = ledger.journal(tombstone.id, began)
    lines = [line for line in journal if line.event == "goes"]
    removals = tuple(
        Removal(kind=line.kind, place=line.place, fate=line.fate, digest=line.digest, n_rows=line.n_rows, at=line.at)
        for line in lines
        if line.fate != "yours"
    )
    certificate = ForgetCertificate(
        customer=tombstone.id,
        key_id=tombstone.key_id,
        began=next(line.at for line in journal if line.event == "began"),
        ended=now(),
        reason=tombstone.reason,
        by=tombstone.actor,
        removals=removals,
        n_rows=sum(removal.n_rows for removal in removals),
        versions=tuple(versions),
        sources=tuple(f"{line.place}: {line.n_rows:,} rows" for line in lines if line.fate == "yours"),
    )
    name = f"{tombstone.id[:16]}-{re.sub('[^0-9]', '', began)}.json"
    file = private_folder(settings.forgotten / CERTIFICATES) / name
    write_json(file, certificate.model_dump(mode="json"))
    file.chmod(0o600)
    write_private(file.with_suffix(".txt"), certificate_text(certificate))
    return certificate


def certificate_text(certificate: ForgetCertificate) -> str:
    tables = "\n".join(
        f"  {each.fate:<10} {each.kind:<10} {each.n_rows:>8,} rows  {each.place}  {each.digest[:16]}"
        for each in certificate.removals
    )
    versions = "\n".join(
        f"  {each.name} v{each.version}: learned {each.how} from {each.n_rows:,} of their tickets"
        f"{', is champion until a retrained version takes over' if each.is_champion else ''}"
        for each in certificate.versions
    )
    sources = "\n".join(f"  {source}" for source in certificate.sources)
    return (
        "ForgetCertificate of removal\n\n"
        f"customer  {certificate.customer}\n"
        f"          (HMAC-SHA256 of the id, key {certificate.key_id})\n"
        f"reason    {certificate.reason}\n"
        f"by        {certificate.by}\n"
        f"began     {certificate.began}\n"
        f"ended     {certificate.ended}\n\n"
        f"Removed from the workspace ({certificate.n_rows:,} rows over all tables):\n"
        f"{tables or '  nothing was held'}\n\n"
        f"Model versions marked, which cannot become champion again:\n{versions or '  none'}\n\n"
        f"Sources that the workspace does not own; remove the rows there:\n{sources or '  none'}\n"
    )


class RewritingStore(Store):
    """A store that can also rewrite results and clear leftovers."""

    def rewrite(
        self, step: str, key: str, change: Callable[[Path, Path], dict[str, Any]], *, note: Callable[[str], None]
    ) -> str:
        """Replace the result by what `change(old, new)` writes; return its digest.

        Args:
            change: Writes all files of the result into the second folder and returns the fields of its reference that
                have changed.
            note: Records the new digest, before the result is there.
        """
        place = self.place(step, key)
        with self._lock(step, key), named_disk_errors(self.root), temporary_folder(self.root) as folder:
            out = private_folder(folder / "out")
            changed = change(place, out)
            fields = orjson.loads((place / REFERENCE).read_bytes())
            write_json(out / REFERENCE, {**fields, **changed})
            make_private(out)
            digest = seal(out)
            (out / MANIFEST).chmod(0o600)
            note(digest)
            # A kill between the two renames leaves no result: it is made again, like any absent one.
            place.rename(folder / "discarded")
            rename_folder(out, place)
        return digest

    def clear(self, name: str) -> None:
        """Remove unfinished work in `scratch`, `tmp` or `damaged`, except what a process is working on."""
        folder = self.root / name
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if path.suffix == ".lock":
                continue
            with hold(path.with_suffix(".lock"), wait_s=0) as held:
                if held and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif held:
                    path.unlink(missing_ok=True)
