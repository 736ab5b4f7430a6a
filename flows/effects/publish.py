"""Publish the warehouse for people: `warehouse/PIPELINE/warehouse.duckdb`, the card, each snapshot's Parquet files.

The database is a copy, renamed into place when complete: readers may keep the old one open as long as they like, and
changing it cannot damage a stored result. It also gets the pipeline's history. Parquet files are links to stored
results.
"""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

from flows.context.run_context import RunContext
from flows.ledger.rows import RunRow
from flows.records.published import warehouse_folder
from flows.workspace.clock import now, present
from flows.workspace.disk import named_disk_errors, private_folder, write_private
from schemas.artifacts import CheckResults, CurationCard, Splits, TicketTable, WarehouseRef
from tasks.curate.cards.card_page import whole_page
from tasks.curate.data_checks import judge_now
from tasks.curate.publish import SNAPSHOT, write_history
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_json, whole_file, write_json
from tasks.storage.sealed_folder import whole_folder

MAX_RUNS = 1000
"""Newest runs in the published table."""


def publish(
    run: RunContext,
    *,
    raw: TicketTable,
    clean: Splits,
    warehouse: WarehouseRef,
    card: CurationCard,
    checks: CheckResults | None,
) -> None:
    """Publish the run's warehouse. Idempotent."""
    folder = private_folder(warehouse_folder(run.settings.home, run.spec.name))
    with named_disk_errors(folder):
        _sweep(folder)
        files = _parquet_files(raw, clean, warehouse)
        _publish_parquet(files, warehouse, private_folder(folder / "snapshots"), run)
        write_private(folder / "card.json", (card.root / "card.json").read_bytes())
        page = whole_page((card.root / "card.html").read_text(encoding="utf-8"), title=f"Curation of {run.spec.name}")
        write_private(folder / "card.html", page)
        made_at = warehouse.root.stat().st_mtime  # the age of its raw texts counts from then
        with whole_file(folder / "warehouse.duckdb", mode=0o600) as copy:  # who reads the old file keeps it open
            shutil.copyfile(warehouse.database, copy)
            _write_history(copy, folder, run, checks)
            os.utime(copy, (made_at, made_at))
            reach("snapshot.copied")


def _sweep(folder: Path) -> None:
    """Remove what a killed process left; the caller holds the pipeline's lock, so no other process works there."""
    for leftover in (*folder.glob(".*.tmp"), *folder.glob(".*.tmp.wal")):
        leftover.unlink()
    for leftover in (folder / "snapshots").glob(".*.tmp"):
        shutil.rmtree(leftover)


def _write_history(copy: Path, folder: Path, context: RunContext, checks: CheckResults | None) -> None:
    runs = [
        {**asdict(row), "config_digest": _config_digest(row)}
        for row in context.ledger.runs(limit=MAX_RUNS, pipeline=context.spec.name)
    ]
    judged = tuple(judge_now(each, present()) for each in checks.results) if checks is not None else ()
    write_history(copy, snapshots=folder / "snapshots", runs=runs, checks=judged)


def _config_digest(row: RunRow) -> str:
    return sha256_json(row.config_json)[:16]


def _publish_parquet(files: dict[str, Path], warehouse: WarehouseRef, snapshots: Path, context: RunContext) -> None:
    """Write `snapshots/ID/`: raw_tickets, train, validation, test, removed, duplicates, splits, funnel."""
    place = snapshots / warehouse.snapshot_id
    if place.is_dir():
        return
    with whole_folder(place, mode=0o700) as aside:
        for name, path in files.items():
            _link(path, aside / f"{name}.parquet")
        facts = {
            "snapshot_id": warehouse.snapshot_id,
            "made_at": now(),
            "run_id": context.run_id,
            "config_digest": _config_digest(context.ledger.run(context.run_id)),
        }
        write_json(aside / SNAPSHOT, facts)


def _parquet_files(raw: TicketTable, clean: Splits, warehouse: WarehouseRef) -> dict[str, Path]:
    others = {path.stem: path for path in sorted(warehouse.root.glob("*.parquet"))}
    return {
        "raw_tickets": raw.tickets,
        "train": clean.train,
        "validation": clean.validation,
        "test": clean.test,
        **others,
    }


def _link(source: Path, target: Path) -> None:
    """Hard-link the file; copy it if the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
