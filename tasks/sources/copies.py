"""Local copies of remote files: complete ones under their content's name, and a list that tells what they are.

`snapshot.json` is what the last whole round brought; `fetched.jsonl` has a line for each file that a round has fetched
so far. A line is written when its copy is in its place, so a round that is killed resumes after the last complete
file. It knows nothing of the network. Called by `remote_files.py`, `remote_fetch.py` and `flows/privacy/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import DataError, LockedError
from schemas.remote_files import RemoteFilesSource
from tasks.failpoint import reach
from tasks.files import sha256_file, sha256_json, sync_directory, write_atomic, write_json
from tasks.sources.formats import SourceFile, ending_of

SNAPSHOT, FETCHED, READING, LOCK = "snapshot.json", "fetched.jsonl", "reading.json", ".lock"
FILES = "files"
"""Folder of the copies."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A remote file as it lies here.

    Attributes:
        name: Of the copy, below `files`: digests of url and bytes, and the ending of the url.
        size: Bytes.
        etag: As the server wrote it, quotes included; null where it tells none.
        modified: `Last-Modified`, likewise.
    """

    url: str
    name: str
    size: int
    sha256: str
    etag: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the last whole round brought.

    Attributes:
        asked: Digest of the urls that it was for.
        gone: Urls whose files were here in the round before, or earlier where they are named one by one.
        finished_at: UTC, ISO 8601.
    """

    asked: str
    copies: tuple[Copy, ...]
    gone: tuple[str, ...]
    finished_at: str


def asked_for(source: RemoteFilesSource) -> str:
    """Digest of the urls; with others the last snapshot is not what the source holds."""
    return sha256_json(sorted(source.urls))


def read_snapshot(folder: Path) -> Snapshot | None:
    """The last whole round; None where there was none, or its list is unreadable."""
    try:
        stored = orjson.loads((folder / SNAPSHOT).read_bytes())
        copies = tuple(Copy(**each) for each in stored["copies"])
        return Snapshot(str(stored["asked"]), copies, tuple(stored["gone"]), str(stored["finished_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_copies(folder: Path) -> dict[str, Copy]:
    """Url -> the newest copy, of the last round and of one that was cut off; whole by its size and sha256."""
    last = read_snapshot(folder)
    found = {copy.url: copy for copy in (last.copies if last else ())}
    found |= {copy.url: copy for copy in _lines(folder / FETCHED)}
    return {url: copy for url, copy in found.items() if is_whole(folder, copy)}


def is_whole(folder: Path, copy: Copy) -> bool:
    """Does the copy lie here with the bytes that were fetched?"""
    path = folder / FILES / copy.name
    try:
        return path.stat().st_size == copy.size and sha256_file(path) == copy.sha256
    except OSError:
        return False


def aside(folder: Path, number: int) -> Path:
    """Where this process writes the file of this number while it is fetching it."""
    return folder / f"part-{os.getpid()}-{number}.tmp"


def keep(folder: Path, part: Path, copy: Copy) -> None:
    """Put a whole file, fsynced by who wrote it, in its place, and note it."""
    reach("copies.fetched")
    part.chmod(0o600)
    part.replace(folder / FILES / copy.name)
    sync_directory(folder / FILES)
    reach("copies.renamed")
    with (folder / FETCHED).open("ab") as stream:
        stream.write(orjson.dumps(asdict(copy)) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    reach("copies.noted")


def copy_name(url: str, sha256: str, *, packed: str = "") -> str:
    """Name of a copy: no two urls and no two contents share one, and its ending tells the format.

    Args:
        packed: Ending of the form in which the server packed it on the way, where the url does not tell.
    """
    ending = ending_of(url.partition("?")[0] if not url.startswith("s3://") else url)
    return f"{sha256_json(url)[:16]}-{sha256[:16]}{ending}{'' if ending.endswith(packed) else packed}"


def finish(folder: Path, snapshot: Snapshot) -> None:
    """Say that the round is whole, then let go what it does not hold."""
    write_json(folder / SNAPSHOT, asdict(snapshot))
    reach("copies.told")
    (folder / FETCHED).unlink(missing_ok=True)
    names = {copy.name for copy in snapshot.copies}
    for path in (folder / FILES).iterdir():
        if path.name not in names:
            path.unlink()
    sync_directory(folder)


def note_reading(folder: Path, source: RemoteFilesSource) -> None:
    """Keep how the copies are read next to them: finding a customer's rows must work without the pipeline."""
    reading = source.model_dump(mode="json", include={"format", "shape", "columns"})
    write_atomic(folder / READING, orjson.dumps(reading, option=orjson.OPT_SORT_KEYS))


@contextmanager
def prepared(folder: Path) -> Iterator[None]:
    """The folder is there, and this process's alone while the block runs.

    Raises:
        LockedError: TG0520, another process ingests the same source.
    """
    import fcntl

    (folder / FILES).mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    with (folder / LOCK).open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                "another process is fetching these files", code="TG0520", where=str(folder),
                hint="wait for it to end; `tunegate status` shows what is running",
            ) from None  # fmt: skip
        for part in folder.glob("part-*.tmp"):
            part.unlink()
        yield


def copies_fingerprint(source: RemoteFilesSource, folder: Path) -> str:
    """Digest of urls and bytes of the last round; one of its own while none was whole. Reads no copy."""
    last = read_snapshot(folder)
    if last is None or last.asked != asked_for(source):
        return sha256_json({"complete": None})
    return sha256_json({copy.url: copy.sha256 for copy in last.copies})


def need_copies(source: RemoteFilesSource, folder: Path) -> tuple[SourceFile, ...]:
    """The copies under their urls, ordered by these.

    Raises:
        DataError: TG0270, the urls were never fetched, or a copy is gone.
    """
    last = read_snapshot(folder)
    files = [SourceFile(copy.url, folder / FILES / copy.name) for copy in (last.copies if last else ())]
    if last is None or last.asked != asked_for(source) or not all(file.path.is_file() for file in files):
        raise DataError(
            "not all files of this source are here",
            code="TG0270",
            where=", ".join(source.urls),
            hint="tunegate data curate PIPELINE fetches them; plan and reproduce never do",
        )
    return tuple(sorted(files, key=lambda file: file.name))


def _lines(path: Path) -> Iterable[Copy]:
    """Whole lines; a kill leaves half a one at the end."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.split(b"\n"):
        try:
            stored: dict[str, Any] = orjson.loads(line)
            yield Copy(**stored)
        except (ValueError, TypeError):
            continue
