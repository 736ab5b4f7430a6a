"""A registered candidate in the form of another program: a folder with a manifest, complete or not there at all.

The folder is written aside, compared with what the gate judged, sealed and renamed. Its MANIFEST.json names every file
with its sha256, and under `export` where it comes from and whether it was ever promoted. Called by `flows/cli/
exporting.py`, which knows the ledger; this does not.
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


def export_candidate(
    source: Exported,
    origin: ExportOrigin,
    *,
    out: Path,
) -> Export:
    """Write the folder `out`, which must not exist yet or be empty.

    Raises:
        ConfigError: TG0189, `out` is taken; TG0185, there is no such format, or the model has no such form.
        StorageError: what is to be exported is damaged or not what was evaluated (TG0510, TG0549), results
            that a check needs are gone (TG0510), or what was written reads back otherwise (TG0547).
        TrainingError: TG0403, a converted model does not answer as what the gate judged.
    """
    out = out.absolute()
    _check_free(out)
    check_evaluated(source.bundle, source.trained)
    form = format_of(origin.format)
    if form.reads_base and verify(source.model.root) != source.model.digest:
        raise StorageError(
            "the base model is not the one that was trained on",
            code="TG0549",
            where=str(source.model.root),
            hint="remove this folder and run the pipeline again: it is made anew",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    aside.mkdir(mode=0o700)
    try:
        checked = form.write(source, aside)
        told = origin.model_copy(update={"checked": checked})
        digest = seal(aside, about={"export": told.model_dump(mode="json")})
        files = {
            path.relative_to(aside).as_posix(): path.stat().st_size
            for path in sorted(aside.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        aside.rename(out)
        sync_directory(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Export(out, digest, told, files)


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            "the folder to export into is taken; allowed is one that does not exist yet, or an empty one",
            code="TG0189",
            where=str(out),
            hint="name another folder: an export never writes into what is there",
        )
