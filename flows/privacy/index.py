"""The index of who is held where, kept beside the store and brought up to date result by result.

`index/KEY_ID/STEP/KEY.DIGEST.parquet`. What a model learned from is kept in it when the examples are gone: hashes and
counts alone, so that a later forgetting still knows. Called at the end of a run's stages, and before every answer.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.engine.disk import private_folder
from flows.privacy.graph import Graph, Node
from flows.privacy.keys import load_hashes
from flows.settings import Settings, open_ledger
from schemas.errors import LockedError
from tasks.curate.ingest.whose import all_copies, copy_customers, reading_digest
from tasks.forget.hashes import KeyedHash
from tasks.forget.holders import EXAMPLES, index_customers, index_rows, parts_of
from tasks.forget.tables import is_split

SNAPSHOT, WAREHOUSE, LANDED, COPIED = "snapshot", "warehouse_published", "landed", "copied"
LEARNED = ".learned.parquet"


@dataclass(frozen=True)
class Indexed:
    """An index file's name, taken apart."""

    step: str
    key: str
    learned: bool

    @classmethod
    def of(cls, name: str) -> Indexed:
        """From `STEP/KEY.DIGEST.parquet`."""
        step, _, file = name.partition("/")
        return cls(step, file.split(".")[0], file.endswith(LEARNED))


def index_new_results(settings: Settings) -> None:
    """Bring the index up to date; what is in it already costs a look."""
    graph = Graph(settings.home, open_ledger(settings))
    update_index(settings, graph, load_hashes(settings), skip_locked=True)


def update_index(settings: Settings, graph: Graph, hashes: KeyedHash, *, skip_locked: bool = False) -> Path:
    """Index what is new, forget what is gone, and return the index's folder.

    Args:
        skip_locked: Leave out a source that another pipeline is bringing in at this moment: its run looks itself.

    Raises:
        LockedError: TG0551, another process has a database open.
    """
    base = settings.home / "index"
    root = private_folder(base / hashes.key_id)
    for other in base.iterdir():
        if other != root:
            shutil.rmtree(other, ignore_errors=True)  # of another key: its hashes mean nothing here
    files = {file.relative_to(root).as_posix() for file in root.glob("*/*.parquet")}
    wanted = _index_store(graph, root, files, hashes) | _index_published(
        settings.home, root, files, hashes, skip_locked=skip_locked
    )
    for name in files - wanted:
        if not name.endswith(LEARNED):
            (root / name).unlink(missing_ok=True)
    return root


def snapshot_key(pipeline: str, snapshot: str) -> str:
    """Name of a published snapshot in the index."""
    return f"{pipeline}--{snapshot}"


def _index_store(graph: Graph, root: Path, files: set[str], hashes: KeyedHash) -> set[str]:
    wanted: set[str] = set()
    for node in graph.present:
        stem = f"{node.step}/{node.key}.{node.digest[:16]}"
        known = next((name for name in (f"{stem}.parquet", f"{stem}{LEARNED}") if name in files), None)
        if known is not None:
            wanted.add(known)
            continue
        folder = graph.path(node)
        parts = parts_of(folder)
        if not parts:
            continue
        name = f"{stem}{LEARNED}" if EXAMPLES in parts else f"{stem}.parquet"
        private_folder((root / name).parent)
        index_rows(folder, hashes, root / name, splits=_splits_of(node, graph))
        wanted.add(name)
    return wanted


def _splits_of(node: Node, graph: Graph) -> Path | None:
    made_from = (source for digest in sorted(node.inputs) for source in graph.by_digest.get(digest, []))
    return next((graph.path(source) for source in made_from if is_split(graph.path(source))), None)


def _index_published(home: Path, root: Path, files: set[str], hashes: KeyedHash, *, skip_locked: bool) -> set[str]:
    wanted: set[str] = set()
    for step, key, place in published(home):
        name = f"{step}/{key}.{_stamp(place)}.parquet"
        wanted.add(name)
        if name in files:
            continue
        private_folder((root / name).parent)
        if step == WAREHOUSE:
            from tasks.forget.databases import customers_of

            index_customers({"warehouse.duckdb": customers_of(place)}, hashes, root / name)
        elif step == COPIED:
            index_customers({place.name: copy_customers(place)}, hashes, root / name)
        elif step == LANDED:
            from tasks.curate.ingest.whose import landed_customers

            try:
                index_customers({place.name: landed_customers(place)}, hashes, root / name)
            except LockedError:
                if not skip_locked:
                    raise
        else:
            index_rows(place, hashes, root / name)
    return wanted


def published(home: Path) -> Iterator[tuple[str, str, Path]]:
    """(step and key in the index, path) of every published warehouse and snapshot, and of what was brought in."""
    for folder in sorted((home / "warehouse").glob("*")):
        database = folder / "warehouse.duckdb"
        if database.is_file():
            yield WAREHOUSE, folder.name, database
        for snapshot in sorted((folder / "snapshots").glob("*")):
            if snapshot.is_dir():
                yield SNAPSHOT, snapshot_key(folder.name, snapshot.name), snapshot
    for database in sorted((home / "ingest").glob("*/*/ingest.duckdb")):
        if database.stat().st_size:
            yield LANDED, snapshot_key(database.parent.parent.name, database.parent.name), database
    for copy in all_copies(home / "ingest"):
        source = copy.parent.parent
        below = snapshot_key(source.parent.name, snapshot_key(source.name, copy.name.partition(".")[0]))
        yield COPIED, snapshot_key(below, reading_digest(copy)), copy


def _stamp(place: Path) -> str:
    """Changes when the file does, or a file of the folder: no copy has the inode and change time of another."""
    log = place.with_name(f"{place.name}.wal")  # what DuckDB has committed and not yet merged
    files = sorted(place.iterdir()) if place.is_dir() else [each for each in (place, log) if each.exists()]
    told = [(file.name, (found := file.stat()).st_size, found.st_ino, found.st_ctime_ns) for file in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
