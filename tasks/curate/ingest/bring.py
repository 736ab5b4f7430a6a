"""Bring a source in before a run reads it, and say what is here: one folder for each source below `ingest`.

Local files, datasets and generated tickets need nothing. The network is asked here and nowhere else, and only because
the source says so. Called by `flows/context/ingest.py`; `tasks/curate/extract.py` reads what is here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schemas.iceberg import IcebergSource
from schemas.remote_files import RemoteFilesSource
from schemas.remote_source import PostgresSource, RemoteSource, ZendeskSource
from schemas.source import DuckDBSource, SourceSpec
from tasks.curate.ingest.copies import asked_for, read_snapshot
from tasks.curate.ingest.extras import need_package
from tasks.curate.ingest.in_use import copy_database, forget_copy, is_held, need_database
from tasks.curate.ingest.landing import FILE, Landing, open_landing, read_landing, rewrite_if_replaced
from tasks.curate.ingest.s3 import profile_keys
from tasks.curate.ingest.whose import note_whose, whose_of
from tasks.files import sha256_json
from tasks.progress import Progress, silent

if TYPE_CHECKING:
    from tasks.forget.hashes import Forgotten


@dataclass(frozen=True)
class Brought:
    """What lies here for a source.

    Attributes:
        n_rows: Tickets, rows or files, those that are gone upstream included; 0 for a copied DuckDB file.
        n_gone: Of these, deleted upstream.
        finished_at: When it was complete, UTC, ISO 8601.
        unit: What was counted.
    """

    n_rows: int
    n_gone: int
    finished_at: str
    unit: Literal["rows", "files"] = "rows"


def ingest_folder(source: SourceSpec, landed: Path) -> Path | None:
    """The folder of this source below `landed`; None for a source that is read where it lies.

    What is only made of the rows plays no part: with other `columns` nothing is brought in anew.
    """
    match source:
        case ZendeskSource():
            asked: dict[str, object] = {"address": source.address, "start": source.start}
        case PostgresSource():
            asked = source.model_dump(include={"dsn", "table", "query", "key", "cursor"}, mode="json")
        case DuckDBSource():
            asked = {"database": source.database}
        case RemoteFilesSource():
            asked = {"endpoint": source.endpoint}  # urls come and go, and their files stay
        case _:
            return None
    return landed / f"{source.kind}-{sha256_json(asked)[:16]}"


def bring_in(
    source: SourceSpec, *, root: Path, landed: Path, forgotten: Forgotten | None = None, progress: Progress = silent
) -> Brought | None:
    """Make what the source holds now readable here; None when it is read where it lies.

    Killed at any moment, the next call goes on behind the last committed page.

    Args:
        forgotten: Customers whose rows are left out before anything is written.

    Raises:
        ConfigError: what the `sync_...` of its kind and `bring_files` raise, as all below.
        DataError: TG0203, TG0209 and TG0270.
        LockedError: TG0520, another process brings it in.
        SecurityError: TG0829.
        ServiceError: TG0707 to TG0709 and TG0714.
    """
    folder = ingest_folder(source, landed)
    if folder is None:
        return None
    if isinstance(source, DuckDBSource):
        return _copy_if_held(root / Path(source.database).expanduser(), folder)
    if isinstance(source, RemoteFilesSource):
        from tasks.curate.ingest.remote_files import bring_files

        bring_files(source, folder, at=datetime.now(UTC).isoformat(timespec="seconds"), progress=progress)
        return brought(source, landed=landed)
    if not isinstance(source, RemoteSource):
        return None
    if isinstance(source, PostgresSource):
        _start_over_elsewhere(source, folder)
    rewrite_if_replaced(folder)
    whose = whose_of(source)
    leaves = partial(whose.leaves, forgotten=forgotten) if forgotten else None
    with open_landing(folder, leaves=leaves) as landing:
        note_whose(landing, whose)
        if landing.mark("complete") is not None:
            with landing.step(complete=None):
                pass
        _sync(source, landing, progress)
        landing.finish(at=datetime.now(UTC).isoformat(timespec="seconds"))
    rewrite_if_replaced(folder)
    return brought(source, landed=landed)


def check_source(source: SourceSpec) -> None:
    """Raise what can be told of a source without asking anybody.

    Raises:
        ConfigError: TG0112, its extra is not installed; TG0106, a variable is not set; TG0103, it holds no address of a
            database; TG0130, the profile holds no keys; TG0125, its query does not parse.
        SecurityError: TG0811, its query is not one SELECT.
    """
    if isinstance(source, ZendeskSource):
        need_package("dlt", kind=source.kind)
    elif isinstance(source, IcebergSource):
        need_package("pyiceberg", kind=source.kind)
    elif isinstance(source, RemoteFilesSource) and source.profile is not None:
        profile_keys(source.profile)
    elif isinstance(source, PostgresSource):
        from tasks.curate.ingest.postgres import origin_of
        from tasks.curate.ingest.postgres_sql import check_query

        origin_of(source)
        check_query(source)


def brought(source: SourceSpec, *, landed: Path) -> Brought | None:
    """What was brought in last; None when nothing is, or the source is read where it lies. Asks nobody."""
    folder = ingest_folder(source, landed)
    if folder is None or isinstance(source, DuckDBSource):
        return None
    if isinstance(source, RemoteFilesSource):
        last = read_snapshot(folder)
        if last is None or last.asked != asked_for(source):
            return None
        return Brought(len(last.copies) + len(last.gone), len(last.gone), last.finished_at, "files")
    with read_landing(folder) as landing:
        return _counted(landing) if landing else None


def _counted(landing: Landing) -> Brought:
    ((n_rows, n_gone),) = landing.ask(
        "SELECT count(*), count(*) FILTER (state = 'deleted') FROM rows WHERE stream <> 'comment'"
    )
    return Brought(n_rows, n_gone, landing.mark("finished_at") or "")


def _sync(source: RemoteSource, landing: Landing, progress: Progress) -> None:
    if isinstance(source, ZendeskSource):
        from tasks.curate.ingest.zendesk import sync_zendesk

        sync_zendesk(source, landing, progress=progress)
    else:
        from tasks.curate.ingest.postgres import sync_postgres

        sync_postgres(source, landing, progress=progress)


def _start_over_elsewhere(source: PostgresSource, folder: Path) -> None:
    """What the variable of `dsn` names is part of no file: rows of another database must not stay among these."""
    from tasks.curate.ingest.postgres import origin_of

    origin = origin_of(source)
    if (folder / FILE).is_file():
        with open_landing(folder) as landing:
            if landing.mark("origin") == origin:
                return
        shutil.rmtree(folder)
    with open_landing(folder) as landing, landing.step(origin=origin):
        pass


def _copy_if_held(database: Path, folder: Path) -> Brought | None:
    forget_copy(folder)
    need_database(database)
    if not is_held(database):
        return None
    copy_database(database, folder)
    return Brought(0, 0, datetime.now(UTC).isoformat(timespec="seconds"))
