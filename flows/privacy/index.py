"""Which result was made from which, and which customers each holds: the graph of a store, and an index.

The graph is built from the digests of each result's inputs, which its key records; it includes results that are gone,
so that what was made from them is found. The index is next to the store and is updated result by result, as
`index/KEY_ID/STEP/KEY.DIGEST.parquet`. It keeps what a model learned from after the examples are gone, as hashes and
counts only, so that a later removal still knows. Called at the end of a run's stages, and before every answer.

Copies of remote files that hold rows of forgotten customers are kept only while a run reads them: the file itself
belongs to its owner; fetched again, it brings the rows back, and extraction leaves them out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.privacy.keys import load_hashes
from flows.workspace.disk import private_folder
from flows.workspace.settings import Settings
from schemas.errors import LockedError, StorageError
from schemas.forget import Holding
from tasks.privacy.hashes import Forgotten, KeyedHash
from tasks.privacy.results import EXAMPLES, index_customers, index_rows, look_up, parts_of
from tasks.sources.row_owner import UNREAD, all_copies, copy_customers, landed_customers, reading_digest
from tasks.storage.files import sha256_json, sync_directory
from tasks.storage.sealed_folder import MANIFEST

SNAPSHOT, WAREHOUSE, LANDED, COPIED = "snapshot", "warehouse_published", "landed", "copied"
LEARNED = ".learned.parquet"


@dataclass(frozen=True)
class StoredResult:
    step: str
    """Its folder in the store."""
    key: str
    digests: frozenset[str]
    """Of the bytes in the store, and of those that runs have recorded."""
    inputs: frozenset[str]
    digest: str
    """Of the bytes in the store; empty if there are none."""

    @property
    def place(self) -> str:
        """Below the home folder."""
        return f"store/{self.step}/{self.key}"


class HomeGraph:
    """The results of one home folder."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        self.home = home
        recorded = ledger.digests_by_key()
        present = {(place.parent.name, place.name) for place in (home / "store").glob("*/*") if place.is_dir()}
        parts = {(file.parent.name, file.stem): file for file in (home / "keys").glob("*/*.json")}
        self.nodes = [
            _node(home, step, key, parts.get((step, key)), recorded.get(key, frozenset()))
            for step, key in sorted(present | parts.keys())
        ]

    @cached_property
    def by_digest(self) -> dict[str, list[StoredResult]]:
        """Digest -> results that have it or had it."""
        found: dict[str, list[StoredResult]] = {}
        for node in self.nodes:
            for digest in node.digests:
                found.setdefault(digest, []).append(node)
        return found

    @property
    def present(self) -> list[StoredResult]:
        """Results that are in the store."""
        return [node for node in self.nodes if node.digest]

    def made_from(self, roots: Iterable[StoredResult]) -> list[StoredResult]:
        """Return the roots and everything that was made from them, directly or indirectly."""
        users: dict[str, list[StoredResult]] = {}
        for node in self.nodes:
            for digest in node.inputs:
                users.setdefault(digest, []).append(node)
        found: dict[tuple[str, str], StoredResult] = {}
        todo = list(roots)
        while todo:
            node = todo.pop()
            if (node.step, node.key) not in found:
                found[node.step, node.key] = node
                todo += [user for digest in node.digests for user in users.get(digest, [])]
        return [found[place] for place in sorted(found)]

    def reference(self, node: StoredResult) -> dict[str, Any]:
        """Return the fields of the result's reference; empty for one that is gone or damaged."""
        try:
            fields: dict[str, Any] = orjson.loads((self.path(node) / "artifact.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return fields

    def path(self, node: StoredResult) -> Path:
        return self.home / node.place


def digest_at(folder: Path) -> str:
    """Return a result's digest by its manifest; `damaged` if that is unreadable, empty without a folder."""
    if not folder.is_dir():
        return ""
    with suppress(OSError, ValueError, KeyError):
        return sha256_json(orjson.loads((folder / MANIFEST).read_bytes())["files"])
    return "damaged"


def _node(home: Path, step: str, key: str, parts: Path | None, recorded: frozenset[str]) -> StoredResult:
    digest = digest_at(home / "store" / step / key)
    inputs: set[str] = set()
    if parts is not None:
        with suppress(OSError, ValueError, KeyError):
            for value in orjson.loads(parts.read_bytes())["inputs"].values():
                inputs |= {value} if isinstance(value, str) else set(value)
    known = recorded | ({digest} if digest and digest != "damaged" else frozenset())
    return StoredResult(step, key, frozenset(known), frozenset(inputs), digest)


@dataclass(frozen=True)
class Indexed:
    """The parts of an index file's name."""

    step: str
    key: str
    learned: bool

    @classmethod
    def of(cls, name: str) -> Indexed:
        """Parse `STEP/KEY.DIGEST.parquet`."""
        step, _, file = name.partition("/")
        return cls(step, file.split(".")[0], file.endswith(LEARNED))


def index_new_results(settings: Settings) -> None:
    """Update the index; entries that it has already cost almost nothing."""
    graph = HomeGraph(settings.home, open_ledger(settings))
    update_index(settings, graph, load_hashes(settings), skip_locked=True, skip_damaged=True)


def update_index(
    settings: Settings, graph: HomeGraph, hashes: KeyedHash, *, skip_locked: bool = False, skip_damaged: bool = False
) -> Path:
    """Index what is new, drop what is gone, and return the index's folder.

    Args:
        skip_locked: Leave out a source that another pipeline is ingesting at this moment: its run checks it itself.
        skip_damaged: Leave out results that cannot be read: a run that needs them makes them again.

    Raises:
        StorageError: TG0510, a result cannot be read.
        LockedError: TG0520, another process has a database open.
    """
    base = settings.home / "index"
    root = private_folder(base / hashes.key_id)
    for other in base.iterdir():
        if other != root:
            shutil.rmtree(other, ignore_errors=True)  # of another key: its hashes are useless here
    files = {file.relative_to(root).as_posix() for file in root.glob("*/*.parquet")}
    wanted = _index_store(graph, root, files, hashes, skip_damaged=skip_damaged) | _index_published(
        settings.home, root, files, hashes, skip_locked=skip_locked
    )
    for name in files - wanted:
        if not name.endswith(LEARNED):
            (root / name).unlink(missing_ok=True)
    return root


def snapshot_key(pipeline: str, snapshot: str) -> str:
    """Return the name of a published snapshot in the index."""
    return f"{pipeline}--{snapshot}"


def _index_store(graph: HomeGraph, root: Path, files: set[str], hashes: KeyedHash, *, skip_damaged: bool) -> set[str]:
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
        try:
            index_rows(folder, hashes, root / name, splits=_splits_of(node, graph))
        except StorageError:
            if not skip_damaged:
                raise
            continue
        wanted.add(name)
    return wanted


def _splits_of(node: StoredResult, graph: HomeGraph) -> Path | None:
    made_from = (source for digest in sorted(node.inputs) for source in graph.by_digest.get(digest, []))
    return next((graph.path(source) for source in made_from if (graph.path(source) / "train.parquet").is_file()), None)


def _index_published(home: Path, root: Path, files: set[str], hashes: KeyedHash, *, skip_locked: bool) -> set[str]:
    wanted: set[str] = set()
    for step, key, place in published(home):
        name = f"{step}/{key}.{_stamp(place)}.parquet"
        wanted.add(name)
        if name in files:
            continue
        private_folder((root / name).parent)
        if step == SNAPSHOT:
            index_rows(place, hashes, root / name)
            continue
        from tasks.privacy.databases import customers_of  # DuckDB: only where there is something new

        read = {WAREHOUSE: customers_of, COPIED: copy_customers, LANDED: landed_customers}[step]
        try:
            index_customers({place.name: read(place)}, hashes, root / name)
        except LockedError:
            if step != LANDED or not skip_locked:
                raise
    return wanted


def published(home: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield step and key in the index, and path, of every published warehouse and snapshot and of ingested data."""
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
    """Return a stamp that changes with the file or a file of the folder: no copy shares inode and change time."""
    log = place.with_name(f"{place.name}.wal")  # what DuckDB has committed and not yet merged
    files = sorted(place.iterdir()) if place.is_dir() else [each for each in (place, log) if each.exists()]
    states = [(file.name, (found := file.stat()).st_size, found.st_ino, found.st_ctime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def remove_copies(settings: Settings, folder: Path, forgotten: Forgotten) -> None:
    """Remove the copies below the source's folder that hold rows of these customers, or unreadable rows."""
    if not any(folder in copy.parents for copy in all_copies(settings.home / "ingest")):
        return
    index = update_index(settings, HomeGraph(settings.home, open_ledger(settings)), forgotten.hashes, skip_locked=True)
    owners = [*sorted(forgotten.owners), _unread_owner(forgotten.hashes)]
    for copy in _held(settings.home, index, owners):
        if folder in copy.parents:
            copy.unlink()
            sync_directory(copy.parent)


def unread_copies(home: Path, index: Path, hashes: KeyedHash) -> list[Holding]:
    """Return the copies with unreadable rows: they may belong to any customer."""
    note = "has unreadable rows; the next run fetches it again"
    return [
        Holding(kind="landed", place=copy.relative_to(home).as_posix(), fate="removed", note=note)
        for copy in _held(home, index, [_unread_owner(hashes)])
    ]


def _held(home: Path, index: Path, owners: Sequence[str]) -> list[Path]:
    found = {Indexed.of(held.file) for held in look_up(index, owners)}
    keys = {entry.key for entry in found if entry.step == COPIED}
    return [place for step, key, place in published(home) if step == COPIED and key in keys]


def _unread_owner(hashes: KeyedHash) -> str:
    return hashes.of("customer", UNREAD)
