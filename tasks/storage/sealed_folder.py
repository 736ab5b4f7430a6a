"""A folder that is complete or missing: written aside, made durable, renamed; sealed ones list and verify their files.

`tasks/cluster/shared.py` does the same on storages that are not file systems.
"""

import glob
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigError, StorageError
from tasks.storage.disk_errors import name_disk_error
from tasks.storage.files import sha256_file, sha256_json, sync_directory, sync_file, write_json

MANIFEST = "MANIFEST.json"


@contextmanager
def whole_folder(place: Path, *, mode: int = 0o777, complete: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield an empty folder beside `place`, which gets that name at the end of the block, durably.

    After an exception it is removed, and `place` is as before. A killed process leaves it as `.NAME.*.tmp`, see
    `remove_unfinished`.

    Args:
        place: Missing or an empty folder by the end of the block.
        mode: Permissions, before the umask.
        complete: Makes the folder's contents durable; by default `sync_tree`.

    Raises:
        StorageError: TG0501, TG0554, the folder cannot be created.
        OSError: `place` is not empty (ENOTEMPTY or EEXIST): another process was first.
    """
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir(mode=mode)
    except OSError as error:
        raise name_disk_error(error, place.parent) or StorageError(
            f"cannot write: {error.strerror}", code="TG0554", where=str(place.parent)
        ) from None
    try:
        yield aside
        (complete or sync_tree)(aside)
        rename_folder(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sealed_folder(
    place: Path, *, mode: int = 0o777, about: Mapping[str, object] | None = None
) -> AbstractContextManager[Path]:
    """Like `whole_folder`; at the end of the block the folder is sealed, too. `about` may be filled in until then."""
    return whole_folder(place, mode=mode, complete=partial(seal, about=about))


def rename_folder(folder: Path, place: Path) -> None:
    """Give the folder a name that outlives a power cut; `place` is missing or an empty folder."""
    folder.rename(place)
    sync_directory(place.parent)


def remove_unfinished(place: Path) -> None:
    """Remove what killed processes left beside `place`; no other process may be writing it."""
    for left_over in place.parent.glob(f".{glob.escape(place.name)}.*.tmp"):
        shutil.rmtree(left_over, ignore_errors=True)


def sync_tree(directory: Path) -> None:
    """Make every file and folder of the directory durable."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            sync_file(path)
    for folder in sorted(p for p in directory.rglob("*") if p.is_dir()):
        sync_directory(folder)
    sync_directory(directory)


def seal(directory: Path, *, about: Mapping[str, object] | None = None) -> str:
    """Write MANIFEST.json for every file below the directory, fsync everything and return the manifest's sha256.

    The manifest lists each file with its size in bytes and sha256; equal contents give an equal digest in any
    directory.

    Args:
        directory: Its files must not change afterwards.
        about: Additional keys of the manifest; not part of the digest.
    """
    sync_tree(directory)
    entries = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST):
        entries[path.relative_to(directory).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    digest = sha256_json(entries)
    write_json(directory / MANIFEST, {**(about or {}), "digest": digest, "files": entries})
    return digest


def read_manifest(directory: Path) -> dict[str, dict[str, Any]]:
    """File name -> its `bytes` and `sha256`, as sealed; reads no other file.

    Raises:
        StorageError: TG0510, the manifest is missing, unreadable or altered.
    """
    path = directory / MANIFEST
    try:
        manifest = orjson.loads(path.read_bytes())
        entries: dict[str, dict[str, Any]] = {
            name: {"bytes": int(each["bytes"]), "sha256": str(each["sha256"])}
            for name, each in manifest["files"].items()
        }
        digest = sha256_json(entries)
        as_sealed = manifest["digest"] == digest
    except (FileNotFoundError, NotADirectoryError):
        if directory.is_dir():
            message, hint = "there is no manifest", "give the folder that was exported or stored"
        else:
            message = "there is no such folder on this machine"
            hint = "hosts that share a ledger share the state folder too: mount it here, or run where the folder is"
        raise StorageError(message, code="TG0510", where=str(path), hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise StorageError(f"no readable manifest: {type(error).__name__}", code="TG0510", where=str(path)) from None
    if not as_sealed:
        raise StorageError("the manifest was altered: its digest does not match", code="TG0510", where=str(path))
    return entries


def verify(directory: Path) -> str:
    """Compare every file with the manifest; returns the same digest as `seal`.

    Raises:
        StorageError: TG0510, the manifest is missing or unreadable, or a file is missing, added or changed.
    """
    entries = read_manifest(directory)
    present = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST}
    for name in sorted(present ^ entries.keys()):
        state = "missing" if name in entries else "not in the manifest"
        raise StorageError(f"file {state}: {name}", code="TG0510", where=str(directory))
    for name, entry in entries.items():
        got = sha256_file(directory / name)
        if got != entry["sha256"]:
            raise StorageError(
                f"file changed: sha256 {got[:12]}, manifest says {entry['sha256'][:12]}",
                code="TG0510",
                where=str(directory / name),
                hint="remove the damaged directory; the next run recreates it",
            )
    return sha256_json(entries)


def is_whole(directory: Path) -> bool:
    """Whether the directory was sealed and every file is as it was then."""
    try:
        verify(directory)
    except StorageError:
        return False
    return True


@dataclass(frozen=True)
class SealedFolder:
    """A sealed folder's contents."""

    root: Path
    digest: str
    """sha256 over the manifest's files."""
    files: Mapping[str, int]
    """File -> bytes."""


def sealed_contents(root: Path) -> SealedFolder:
    """The contents as sealed; reads the manifest alone.

    Raises:
        StorageError: as `read_manifest`.
    """
    entries = read_manifest(root)
    return SealedFolder(root, sha256_json(entries), {name: entry["bytes"] for name, entry in entries.items()})


def check_free(out: Path) -> Path:
    """Return the absolute path of a folder that is missing or empty.

    Raises:
        ConfigError: TG0189, it is not.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            f"the folder to export into is {'not empty' if out.is_dir() else 'a file'}; it must be missing or empty",
            code="TG0189",
            where=str(out),
            hint="use another folder: an export never overwrites files",
        )
    return out
