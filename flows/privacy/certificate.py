"""The certificate of a removal: what went by digest and count, without the customer's name; as JSON and as a text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from flows.engine.disk import private_folder
from flows.engine.ledger import Ledger
from flows.engine.runs import now
from flows.settings import Settings
from schemas.forget import Certificate, LearnedVersion, Removal, Tombstone
from tasks.files import write_atomic, write_json

FOLDER = "certificates"


def write_certificate(
    settings: Settings, ledger: Ledger, tombstone: Tombstone, began: str, versions: Iterable[LearnedVersion]
) -> Certificate:
    """Compose it from this removal's journal and leave it beside the tombstones; done again it is the same file."""
    lines = [line for line in ledger.journal(tombstone.id, began) if line.event == "goes"]
    removals = tuple(
        Removal(kind=line.kind, place=line.place, fate=line.fate, digest=line.digest, n_rows=line.n_rows, at=line.at)
        for line in lines
        if line.fate != "yours"
    )
    certificate = Certificate(
        customer=tombstone.id,
        key_id=tombstone.key_id,
        began=began.partition(" ")[0],
        ended=now(),
        reason=tombstone.reason,
        by=tombstone.actor,
        removals=removals,
        n_rows=sum(removal.n_rows for removal in removals),
        versions=tuple(versions),
        sources=tuple(f"{line.place}: {line.n_rows:,} rows" for line in lines if line.fate == "yours"),
    )
    file = certificate_file(settings, tombstone.id, began)
    private_folder(file.parent)
    write_json(file, certificate.model_dump(mode="json"))
    write_atomic(file.with_suffix(".txt"), told(certificate).encode())
    for each in (file, file.with_suffix(".txt")):
        each.chmod(0o600)
    return certificate


def certificate_file(settings: Settings, tombstone: str, began: str) -> Path:
    """Where the certificate of a removal lies."""
    return settings.forgotten / FOLDER / f"{tombstone[:16]}-{re.sub('[^0-9]', '', began)}.json"


def told(certificate: Certificate) -> str:
    """The certificate for people."""
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
        "Certificate of removal\n\n"
        f"customer  {certificate.customer}\n"
        f"          (HMAC-SHA256 of the id, key {certificate.key_id})\n"
        f"reason    {certificate.reason}\n"
        f"by        {certificate.by}\n"
        f"began     {certificate.began}\n"
        f"ended     {certificate.ended}\n\n"
        f"Removed from the workspace ({certificate.n_rows:,} rows over all tables):\n"
        f"{tables or '  nothing was held'}\n\n"
        f"Model versions marked, not to become champion again:\n{versions or '  none'}\n\n"
        f"Not the workspace's to remove, read from there before:\n{sources or '  none'}\n"
    )
