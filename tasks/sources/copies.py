"""Local copies of remote files: complete files named by their content, and a list that describes them.

`snapshot.json` is the result of the last complete round; `fetched.jsonl` has a line for each file that a round has
fetched so far. A line is written once its copy is in place, so a round that is killed resumes after the last complete
file.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import DataError, LockedError
from schemas.file_reading import CsvSpec
from schemas.remote_source import RemoteFilesSource
from tasks.sources.formats import SourceFile, ending_of
from tasks.storage.failpoint import reach
from tasks.storage.files import sha256_file, sha256_json, sync_directory, write_atomic, write_json

SNAPSHOT, FETCHED, READING, LOCK = "snapshot.json", "fetched.jsonl", "reading.json", ".lock"
FILES = "files"
"""Folder of the copies."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A local copy of a remote file.

    Attributes:
        name: Name of the copy below `files`: digests of url and bytes, and the suffixes of the url.
        size: Bytes.
        etag: As the server sent it, with quotes; None if it sent none.
        modified: `Last-Modified`, likewise.
    """

    url: str
    name: str
    size: int
    sha256: str
    etag: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class FetchRound:
    """Result of the last complete round.

    Attributes:
        urls_digest: Digest of the urls that it fetched.
        gone: Urls whose files were there in the previous round, or earlier if they are named one by one.
        finished_at: UTC, ISO 8601.
    """

    urls_digest: str
    copies: tuple[Copy, ...]
    gone: tuple[str, ...]
    finished_at: str


def digest_urls(source: RemoteFilesSource) -> str:
    """Digest of the urls; a snapshot with another digest is not one of this source."""
    return sha256_json(sorted(source.urls))


def read_snapshot(folder: Path) -> FetchRound | None:
    """The last complete round; None if there was none or its list cannot be read."""
    try:
        stored = orjson.loads((folder / SNAPSHOT).read_bytes())
        copies = tuple(Copy(**each) for each in stored["copies"])
        return FetchRound(str(stored["urls_digest"]), copies, tuple(stored["gone"]), str(stored["finished_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_copies(folder: Path) -> dict[str, Copy]:
    """Url -> the newest copy, of the last round or of an interrupted one, whose size and sha256 are right."""
    last = read_snapshot(folder)
    found = {copy.url: copy for copy in (last.copies if last else ())}
    found |= {copy.url: copy for copy in _lines(folder / FETCHED)}
    return {url: copy for url, copy in found.items() if is_whole(folder, copy)}


def is_whole(folder: Path, copy: Copy) -> bool:
    """True if the copy exists with the bytes that were fetched."""
    path = folder / FILES / copy.name
    try:
        return path.stat().st_size == copy.size and sha256_file(path) == copy.sha256
    except OSError:
        return False


def partial_path(folder: Path, number: int) -> Path:
    """Where this process writes the file of this number while it fetches it."""
    return folder / f"part-{os.getpid()}-{number}.tmp"


def store_copy(folder: Path, part: Path, copy: Copy) -> None:
    """Move a complete file, which its writer has fsynced, into place and record it."""
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
    """Name of a copy, different for each url and content, with the suffixes that give the format.

    Args:
        packed: Suffix of the compression that the server applied in transit, if the url lacks it.
    """
    ending = ending_of(url.partition("?")[0] if not url.startswith("s3://") else url)
    return f"{sha256_json(url)[:16]}-{sha256[:16]}{ending}{'' if ending.endswith(packed) else packed}"


def finish_round(folder: Path, snapshot: FetchRound) -> None:
    """Record that the round is complete, then remove files that are not part of it."""
    write_json(folder / SNAPSHOT, asdict(snapshot))
    reach("copies.recorded")
    (folder / FETCHED).unlink(missing_ok=True)
    names = {copy.name for copy in snapshot.copies}
    for path in (folder / FILES).iterdir():
        if path.name not in names:
            path.unlink()
    sync_directory(folder)


def note_reading(folder: Path, source: RemoteFilesSource) -> None:
    """Store the reading settings with the copies: finding a customer's rows must work without the pipeline."""
    reading = source.model_dump(mode="json", include={"format", "shape", "columns"})
    if source.csv != CsvSpec():  # a digest of this file names what was counted with it before
        reading["csv"] = source.csv.model_dump(mode="json")
    write_atomic(folder / READING, orjson.dumps(reading, option=orjson.OPT_SORT_KEYS))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder, and lock it while the block runs.

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
    """Digest of urls and bytes of the last round, or a fixed one if none was complete. Reads no copy."""
    last = read_snapshot(folder)
    if last is None or last.urls_digest != digest_urls(source):
        return sha256_json({"complete": None})
    return sha256_json({copy.url: copy.sha256 for copy in last.copies})


def require_copies(source: RemoteFilesSource, folder: Path) -> tuple[SourceFile, ...]:
    """The copies, named and ordered by their urls.

    Raises:
        DataError: TG0270, the urls were never fetched, or a copy is missing.
    """
    last = read_snapshot(folder)
    files = [SourceFile(copy.url, folder / FILES / copy.name) for copy in (last.copies if last else ())]
    if last is None or last.urls_digest != digest_urls(source) or not all(file.path.is_file() for file in files):
        raise DataError(
            "not all files of this source have been fetched",
            code="TG0270",
            where=", ".join(source.urls),
            hint="tunegate data curate PIPELINE fetches them; plan and reproduce never do",
        )
    return tuple(sorted(files, key=lambda file: file.name))


def _lines(path: Path) -> Iterable[Copy]:
    """The complete lines; a kill may leave a partial one at the end."""
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
