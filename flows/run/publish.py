"""The warehouse where people find it: `warehouse/PIPELINE/warehouse.duckdb`, the card, each snapshot's Parquet files.

The database is a copy, renamed into its place when complete: readers may hold the one before as long as they like,
and what they do to it cannot harm a stored result. Parquet files are links to the results that hold them. No SQL here
(`tasks/curate/publish.py` makes the tables). Called by `flows/curate.py`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from flows.context.published import warehouse_folder
from flows.ledger.runs import now
from flows.run.open_run import OpenRun
from flows.workspace.disk import named_disk_errors, private_folder
from schemas.artifacts import Splits, TicketTable, WarehouseRef
from tasks.failpoint import reach
from tasks.files import sync_directory, write_json

CARD = ("card.json", "card.html")
"""Files of the curation card, published beside the database."""


def publish_snapshot(opened: OpenRun) -> Path:
    """Publish the run's warehouse; doing it again changes nothing. Returns the database."""
    context, run, curated = opened.context, opened.run, opened.pipeline.curated
    warehouse = run.result(curated.warehouse)
    raw = dict(curated.tables)["extract"]
    folder = private_folder(warehouse_folder(context.settings.home, context.spec.name))
    with named_disk_errors(folder):
        _sweep(folder)
        files = _parquet_files(run.result(raw), run.result(curated.clean), warehouse)
        _publish_parquet(files, warehouse, private_folder(folder / "snapshots"))
        for name in CARD:
            _copy(run.result(curated.card).root / name, folder / name)
        return _publish_database(warehouse, folder)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left aside; the caller holds the pipeline's lock, so nobody is at work there."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()
    for leftover in (folder / "snapshots").glob(".*.tmp"):
        shutil.rmtree(leftover)


def _publish_database(warehouse: WarehouseRef, folder: Path) -> Path:
    database = folder / "warehouse.duckdb"
    made = warehouse.root.stat().st_mtime  # how long its raw texts have been kept counts from then
    _copy(warehouse.database, database, made_at=made)
    sync_directory(folder)
    return database


def _copy(source: Path, target: Path, *, made_at: float | None = None) -> None:
    """Put a complete copy into the target's place: its readers keep the file before, new ones find this."""
    aside = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        shutil.copyfile(source, aside)
        aside.chmod(0o600)
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        if made_at is not None:
            os.utime(aside, (made_at, made_at))
        reach("snapshot.copied")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _publish_parquet(files: dict[str, Path], warehouse: WarehouseRef, snapshots: Path) -> None:
    """`snapshots/ID/`: raw_tickets, train, validation, test, removed, duplicates, splits, funnel."""
    place = snapshots / warehouse.snapshot_id
    if place.is_dir():
        return
    aside = private_folder(snapshots / f".{uuid.uuid4().hex}.tmp")
    try:
        for name, path in files.items():
            _link(path, aside / f"{name}.parquet")
        write_json(aside / "snapshot.json", {"snapshot_id": warehouse.snapshot_id, "made_at": now()})
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync_directory(snapshots)


def _parquet_files(raw: TicketTable, clean: Splits, warehouse: WarehouseRef) -> dict[str, Path]:
    beside = {path.stem: path for path in sorted(warehouse.root.glob("*.parquet"))}
    return {
        "raw_tickets": raw.tickets,
        "train": clean.train,
        "validation": clean.validation,
        "test": clean.test,
        **beside,
    }


def _link(source: Path, target: Path) -> None:
    """A second name for the file; a copy where the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
