"""A folder for other programs: written aside, sealed with a manifest and renamed, so that it is complete or missing."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from tasks.storage.files import MANIFEST, seal, sync_directory


@dataclass(frozen=True)
class SealedFolder:
    """A written folder."""

    root: Path
    digest: str
    """sha256 over the manifest's files."""
    files: Mapping[str, int]
    """File -> bytes."""


def write_sealed(out: Path, write: Callable[[Path], Mapping[str, Any]]) -> SealedFolder:
    """Write the folder `out`, which must be free (`check_free`).

    Args:
        write: Fills an empty folder; returns what its manifest says besides the files.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    aside.mkdir(mode=0o700)
    try:
        digest = seal(aside, about=write(aside))
        files = {
            path.relative_to(aside).as_posix(): path.stat().st_size
            for path in sorted(aside.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        aside.rename(out)
        sync_directory(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return SealedFolder(out, digest, files)


def check_free(out: Path) -> Path:
    """Return the absolute path of a folder that is missing or empty.

    Raises:
        ConfigError: TG0189, it is not.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            "the folder to export into is not empty; it must be missing or empty",
            code="TG0189",
            where=str(out),
            hint="use another folder: an export never overwrites files",
        )
    return out
