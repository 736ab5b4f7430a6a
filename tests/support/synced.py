"""A source as a run reads it: ingested and extracted."""

import itertools
from pathlib import Path
from typing import Any

from schemas.artifacts import TicketTable
from schemas.source import SourceSpec
from tasks.curate.extract import extract_tickets
from tasks.curate.rows import read_rows
from tasks.sources.registry import fingerprint_source, ingest_source, place_of, source_folder


def sync(spec: SourceSpec, folder: Path) -> TicketTable:
    ingest_source(spec, root=folder, landed=folder / "landed")
    return extract(spec, folder)


def extract(spec: SourceSpec, folder: Path, *, out: Path | None = None, **options: Any) -> TicketTable:
    """The tickets that a run would read: paths begin at the folder, and what was ingested lies in its `landed`."""
    out = out or next(folder / f"out-{n}" for n in itertools.count() if not (folder / f"out-{n}").exists())
    out.mkdir(parents=True, exist_ok=True)
    landed = folder / "landed" if (folder / "landed").exists() else None
    known = fingerprint_source(spec, root=folder, landed=landed)
    place = place_of(spec, root=folder, landed=landed)
    return extract_tickets(source=spec, fingerprint=known, place=place, out=out, **options)


def folder_of(spec: SourceSpec, folder: Path) -> Path:
    """Where the source's rows or files lie once they are ingested."""
    found = source_folder(spec, folder / "landed")
    assert found is not None
    return found


def fingerprint(spec: SourceSpec, folder: Path) -> str:
    return fingerprint_source(spec, root=folder, landed=folder / "landed")


def tickets(table: TicketTable) -> dict[str, dict[str, Any]]:
    rows = read_rows(table.tickets).to_pylist()
    assert len({row["ticket_id"] for row in rows}) == len(rows)
    return {row["ticket_id"]: row for row in rows}


def removed(table: TicketTable) -> dict[str, str]:
    return {row["ticket_id"]: row["code"] for row in read_rows(table.removed).to_pylist()}
