"""Export a registered candidate in another program's format: a folder with a manifest, complete or missing.

The folder is written under a temporary name, compared with what the gate judged, sealed and renamed. Its MANIFEST.json
has the sha256 of every file and, as `export`, its origin and whether it was ever promoted. Knows nothing of the ledger.
Called by `flows/cli/exporting.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tasks.release.export_formats  # noqa: F401  registers them
from schemas.errors import ConfigError, StorageError
from schemas.export import ExportOrigin
from tasks.files import MANIFEST, seal, sync_directory, verify
from tasks.release.bundle import check_evaluated
from tasks.release.export_format import Exported, format_names, format_of

__all__ = ["Export", "Exported", "export_candidate", "format_names", "format_of"]


@dataclass(frozen=True)
class Export:
    """A written export."""

    root: Path
    digest: str
    """sha256 over the manifest's files."""
    origin: ExportOrigin
    files: Mapping[str, int]
    """File -> bytes."""


def export_candidate(source: Exported, origin: ExportOrigin, *, out: Path) -> Export:
    """Write the folder `out`, which must be missing or empty.

    Raises:
        ConfigError: TG0189, `out` is not empty; TG0185, there is no such format, or it does not support the model.
        StorageError: the candidate is damaged or differs from what was evaluated (TG0510, TG0549), results that a check
            needs are gone (TG0510), or a file reads back differently (TG0547).
        TrainingError: TG0403, a converted model does not answer like the one that the gate judged.
    """
    out = out.absolute()
    _check_free(out)
    check_evaluated(source.bundle, source.trained)
    form = format_of(origin.format)
    if form.reads_base and verify(source.model.root) != source.model.digest:
        raise StorageError(
            "the base model differs from the one that was trained",
            code="TG0549",
            where=str(source.model.root),
            hint="remove this folder and run the pipeline again: it is recreated",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    aside.mkdir(mode=0o700)
    try:
        checked = form.write(source, aside)
        complete = origin.model_copy(update={"checked": checked})
        digest = seal(aside, about={"export": complete.model_dump(mode="json")})
        files = {
            path.relative_to(aside).as_posix(): path.stat().st_size
            for path in sorted(aside.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        aside.rename(out)
        sync_directory(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Export(out, digest, complete, files)


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            "the folder to export into is not empty; it must be missing or empty",
            code="TG0189",
            where=str(out),
            hint="use another folder: an export never overwrites files",
        )
