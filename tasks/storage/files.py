"""A complete directory or none: manifest, sha256, fsync, rename."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import SecurityError, StorageError

MANIFEST = "MANIFEST.json"


def sha256_file(path: Path) -> str:
    """sha256 of the file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_files(module: str) -> Iterator[tuple[str, Path]]:
    """Yield all files of the package that has this module, sorted: name relative to its parent folder, and path.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    top = module.partition(".")[0]
    found = find_spec(top)
    if found is None:
        raise ModuleNotFoundError(top)
    for folder in map(Path, found.submodule_search_locations or ()):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                yield path.relative_to(folder.parent).as_posix(), path
    if not found.submodule_search_locations and found.origin is not None:
        yield Path(found.origin).name, Path(found.origin)


def sha256_json(value: object) -> str:
    """sha256 of the value's canonical JSON (sorted keys, no spaces), as hex.

    >>> sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def inside(name: str, root: Path, *, where: str) -> Path:
    """Resolve a file name of a configuration, relative to `root`; neither it nor a link may leave `root`.

    Raises:
        SecurityError: TG0818, the file is outside.
    """
    # Not Path.resolve, which raises RuntimeError for a link to itself; with realpath, opening the file fails.
    path = Path(os.path.realpath(root / Path(name).expanduser()))
    if not path.is_relative_to(root.resolve()):
        raise SecurityError(
            f"{name!r} is outside the folder of pipelines.yaml",
            code="TG0818",
            where=where,
            hint="copy it next to pipelines.yaml: everything that decides a run belongs under the same version control",
        )
    return path


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below the folder. Unlike `rglob`, it tolerates a folder that is renamed or removed meanwhile."""
    for where, _folders, names in os.walk(folder):
        yield from (Path(where) / name for name in names)


def write_atomic(path: Path, data: bytes) -> None:
    """Write the file aside, fsync and rename it: a reader sees the old bytes or all the new ones."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_atomic(path, orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")


def sync_file(path: Path) -> None:
    """Make the file's bytes durable, not its name."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Make a rename or a new entry in the directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(directory: Path) -> None:
    """Make every file and folder of the directory durable."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            sync_file(path)
    for folder in sorted(p for p in directory.rglob("*") if p.is_dir()):
        sync_directory(folder)
    sync_directory(directory)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
