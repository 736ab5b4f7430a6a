"""A complete directory or none: manifest, sha256, fsync, rename. Used by tasks and by flows/graph.

It knows nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import SecurityError, StorageError

MANIFEST = "MANIFEST.json"


def sha256_file(path: Path) -> str:
    """sha256 of the file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """sha256 of the value's canonical JSON (sorted keys, no spaces), as hex.

    >>> sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def inside(name: str, root: Path, *, where: str) -> Path:
    """The file of a configuration by its name, which may be relative to `root` and may not leave it, links included.

    Raises:
        SecurityError: TG0818, it lies elsewhere.
    """
    # Not Path.resolve: of a link that leads back to itself it makes a RuntimeError, here opening it fails.
    path = Path(os.path.realpath(root / Path(name).expanduser()))
    if not path.is_relative_to(root.resolve()):
        raise SecurityError(
            f"{name!r} lies outside the folder of pipelines.yaml",
            code="TG0818",
            where=where,
            hint="what decides a run belongs beside pipelines.yaml, under the same version control: copy it there",
        )
    return path


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below the folder. Unlike `rglob`, it goes on when a folder in it is renamed or removed meanwhile."""
    for where, _folders, names in os.walk(folder):
        yield from (Path(where) / name for name in names)


def write_atomic(path: Path, data: bytes) -> None:
    """Write the file aside, fsync, rename: a reader sees the old bytes or all the new ones."""
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


def sync_directory(path: Path) -> None:
    """Make a rename or a new entry in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(directory: Path, *, about: Mapping[str, object] | None = None) -> str:
    """Write MANIFEST.json over every file below the directory, fsync all of it and return the manifest's sha256.

    The manifest names each file with its size in bytes and sha256; equal contents give an equal digest wherever
    the directory lies.

    Args:
        directory: Its files must not change any more.
        about: Further keys of the manifest; no part of the digest.
    """
    entries = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        entries[path.relative_to(directory).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
    digest = sha256_json(entries)
    write_json(directory / MANIFEST, {**(about or {}), "digest": digest, "files": entries})
    for folder in sorted(p for p in directory.rglob("*") if p.is_dir()):
        sync_directory(folder)
    sync_directory(directory)
    return digest


def read_manifest(directory: Path) -> dict[str, dict[str, Any]]:
    """File name -> its `bytes` and `sha256`, as sealed; looks at no other file.

    Raises:
        StorageError: TG0510, the manifest is absent, unreadable, or altered itself.
    """
    path = directory / MANIFEST
    try:
        told = orjson.loads(path.read_bytes())
        entries: dict[str, dict[str, Any]] = {
            name: {"bytes": int(each["bytes"]), "sha256": str(each["sha256"])} for name, each in told["files"].items()
        }
        digest = sha256_json(entries)
        as_sealed = told.get("digest", digest) == digest  # manifests of earlier versions do not tell
    except (FileNotFoundError, NotADirectoryError):
        if directory.is_dir():
            told, hint = "there is no manifest", "name the folder that was exported or stored"
        else:
            told = "there is no such folder on this machine"
            hint = "hosts that share a ledger share the state folder too: mount it here, or run where the folder is"
        raise StorageError(told, code="TG0510", where=str(path), hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise StorageError(f"no readable manifest: {type(error).__name__}", code="TG0510", where=str(path)) from None
    if not as_sealed:
        raise StorageError("the manifest was altered: its digest is another", code="TG0510", where=str(path))
    return entries


def verify(directory: Path) -> str:
    """Compare every file with the manifest; return the same digest as `seal`.

    Raises:
        StorageError: manifest absent or unreadable, or a file is missing, added or changed.
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
                hint="remove the damaged directory; the next run makes it again",
            )
    return sha256_json(entries)
