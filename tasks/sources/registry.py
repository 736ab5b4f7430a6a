"""The kinds of source, and what is done with a source of any kind: nothing else here or in `flows` depends on the kind.

A kind's file is imported when the first source of its kind is used, so its optional package is not needed before. Only
`ingest_source` opens a connection; sources that are read in place need nothing of it.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from schemas.file_reading import Source
from schemas.source import SOURCES
from tasks.privacy.hashes import Forgotten
from tasks.progress import Progress, silent
from tasks.sources.kind import Ingested, Ingestion, Place, SourceKind
from tasks.storage.files import sha256_json

_MODULES = {
    "files": "tasks.sources.files",
    "remote_files": "tasks.sources.remote_files",
    "duckdb": "tasks.sources.duckdb_file",
    "sqlite": "tasks.sources.sqlite_file",
    "iceberg": "tasks.sources.iceberg",
    "hf": "tasks.sources.hub",
    "generated": "tasks.sources.generated",
    "zendesk": "tasks.sources.zendesk",
    "postgres": "tasks.sources.postgres",
}
"""Kind -> the module of its file. A new kind is one more line."""


def register(module: str) -> None:
    """Add the kind of this module, for `kind_of` and as a section of pipelines.yaml.

    Raises:
        ValueError: Another kind has the same name.
    """
    kind = _kind(module)
    if _MODULES.get(kind.name, module) != module:
        raise ValueError(f"{module}: a kind of source {kind.name!r} exists already")
    SOURCES.add(kind.spec)
    _MODULES[kind.name] = module


def kind_of(source: Source) -> SourceKind[Any]:
    """The kind of a source."""
    return _kind(_MODULES[SOURCES.name_of(type(source))])


def place_of(source: Source, *, root: Path, landed: Path | None) -> Place:
    """Where the source is read.

    Args:
        root: Folder of pipelines.yaml.
        landed: Folder of all sources that the pipeline has ingested.
    """
    identity = kind_of(source).identity(source)
    if identity is None or landed is None:
        return Place(root)
    return Place(root, landed / f"{SOURCES.name_of(type(source))}-{sha256_json(identity)[:16]}")


def fingerprint_source(source: Source, *, root: Path, landed: Path | None = None) -> str:
    """sha256 of the source's present content: file names and bytes, the DuckDB file, or the generator's settings.

    For a help desk, Postgres and remote files it covers what was ingested below `landed`; no connection is opened.

    Raises:
        DataError: TG0201, a file or database is missing.
        LockedError: TG0520, it is being ingested now.
        StorageError: TG0519, the file is no DuckDB database.
    """
    return kind_of(source).fingerprint(source, place_of(source, root=root, landed=landed))


def _kind(module: str) -> SourceKind[Any]:
    kind = import_module(module).KIND
    if not isinstance(kind, SourceKind):
        raise TypeError(f"{module}.KIND is not a SourceKind (tasks/sources/kind.py)")
    return kind


def ingest_source(
    source: Source, *, root: Path, landed: Path, forgotten: Forgotten | None = None, progress: Progress = silent
) -> Ingested | None:
    """Bring the folder of the source below `landed` up to date; None if the source is read in place.

    After a kill the next call resumes after the last committed page.

    Args:
        forgotten: Customers to skip before anything is written.

    Raises:
        ConfigError: an extra is not installed, a variable is not set, or the settings do not fit the source.
        DataError: TG0203, TG0209 and TG0270.
        LockedError: TG0520, another process ingests it.
        SecurityError: TG0829.
        ServiceError: TG0707 to TG0709 and TG0714.
    """
    folder = place_of(source, root=root, landed=landed).folder
    if folder is None:
        return None
    return kind_of(source).ingest(source, Ingestion(root, folder, forgotten, progress))


def check_source(source: Source) -> None:
    """Raise errors of a source that can be detected without opening a connection.

    Raises:
        ConfigError: TG0112, its extra is not installed; TG0106, a variable is not set; TG0103, it holds no address of a
            database; TG0130, the profile has no keys; TG0125, its query does not parse.
        SecurityError: TG0811, its query is not a single SELECT.
    """
    kind_of(source).check(source)


def ingested(source: Source, *, landed: Path) -> Ingested | None:
    """What was ingested last; None if nothing was, or if the source is read in place. Opens no connection."""
    folder = source_folder(source, landed)
    return None if folder is None else kind_of(source).ingested(source, folder)


def source_folder(source: Source, landed: Path) -> Path | None:
    """The folder of this source below `landed`; None if it is read in place."""
    return place_of(source, root=Path(), landed=landed).folder


# Kinds without a section in `schemas/source.py` define it in their own file.
for _name in sorted(_MODULES.keys() - set(SOURCES)):
    register(_MODULES[_name])
