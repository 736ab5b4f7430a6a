"""Bring the ledger and the DuckDB files of another version up to date, after a backup of each.

Used by `tunegate ops migrate`.
"""

from dataclasses import dataclass
from pathlib import Path

from flows.ledger.ledger import Ledger
from flows.ledger.migrate import copy_ledger, free_name, ledger_digest, upgrade_file
from flows.ledger.opened import open_ledger
from flows.ledger.postgres import LedgerPostgres
from flows.workspace.settings import Settings


@dataclass(frozen=True)
class Migrated:
    """The result for one file."""

    what: str
    message: str
    backup: str = ""


def migrate_home(settings: Settings, *, ledger_to: str | None) -> list[Migrated]:
    """Bring files of other versions up to date; with `ledger_to`, copy the ledger there as well.

    Raises:
        StorageError: TG0530 or TG0519, a newer program wrote a file; TG0531, the place to copy to is in use.
    """
    done = [*_ledger(settings), *_databases(settings)]
    if ledger_to:
        done.append(_copied(settings, ledger_to))
    return done


def _ledger(settings: Settings) -> list[Migrated]:
    """Migrate the file in the home folder, and the ledger in Postgres if one is used instead."""
    ledger = open_ledger(settings)
    done = upgrade_file(ledger.path, backups=settings.home / "backups")
    migrated = [Migrated(str(ledger.path), _describe(done[0]), str(done[1]))] if done else []
    if isinstance(ledger.kept, LedgerPostgres):
        migrated.append(Migrated(ledger.kept.place, _describe(ledger.kept.upgrade())))
    with ledger.read():  # fails if it is of another version
        return migrated or ([Migrated(ledger.kept.place, _describe(None))] if ledger.exists() else [])


def _describe(version: int | None) -> str:
    return "nothing to do" if version is None else f"version {version} was brought up to date"


def _databases(settings: Settings) -> list[Migrated]:
    """Migrate the feedback databases and the published warehouses; stored results never change."""
    from tasks.warehouse_versions import OURS, rewrite, storage_version

    done = []
    for path in sorted((*settings.home.glob("feedback/*/*.duckdb"), *settings.home.glob("warehouse/*/*.duckdb"))):
        version = storage_version(path) if path.stat().st_size else OURS
        if version == OURS:
            done.append(Migrated(str(path), "nothing to do"))
            continue
        backup = free_name(settings.home / "backups", f"{path.parent.name}-{path.stem}", ".duckdb")
        rewrite(path, backup)
        done.append(Migrated(str(path), f"storage version {version} was rewritten as {OURS}", str(backup)))
    return done


def _copied(settings: Settings, to: str) -> Migrated:
    source = open_ledger(settings)
    target = Ledger(settings.home, to) if "://" in to else Ledger(Path(to))
    counts = copy_ledger(source, target)
    if ledger_digest(source) != ledger_digest(target):
        message = "was copied, but one of the two changed meanwhile: copy it again while nothing runs"
        return Migrated(target.kept.place, message)
    copied = f"{sum(counts.values())} rows, digest {ledger_digest(target)[:16]}"
    return Migrated(target.kept.place, f"copied from {source.kept.place}: {copied}")
