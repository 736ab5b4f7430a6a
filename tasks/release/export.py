"""Export a registered candidate in another program's format: a folder with a manifest, complete or missing.

The folder is written under a temporary name, compared with what the gate judged, sealed and renamed. Its MANIFEST.json
has the sha256 of every file and, as `export`, its origin and whether it was ever promoted. Knows nothing of the ledger.
Called by `flows/cli/exporting.py`.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tasks.release.export_formats  # noqa: F401  registers them
from schemas.errors import ConfigError, StorageError
from schemas.export import ExportOrigin
from tasks.release.bundle import check_evaluated
from tasks.release.export_adapter import Module, write_vllm_together
from tasks.release.export_format import Exported, ExportFormat, format_names, format_of
from tasks.storage.files import MANIFEST, seal, sync_directory, verify

__all__ = ["Export", "Exported", "export_candidate", "export_together", "format_names", "format_of"]


@dataclass(frozen=True)
class Export:
    """A written export."""

    root: Path
    digest: str
    """sha256 over the manifest's files."""
    origins: tuple[ExportOrigin, ...]
    """Of each candidate in it; mostly one."""
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
    form = format_of(origin.format)

    out = _check_free(out)

    def write(folder: Path) -> tuple[ExportOrigin, ...]:
        checked = form.write(replace(source, target=out), folder)
        source.report("seal the folder")
        return (origin.model_copy(update={"checked": checked}),)

    _check_source(source, form)
    return _written(out, write)


def export_together(sources: Sequence[Exported], origins: Sequence[ExportOrigin], *, out: Path) -> Export:
    """Write the adapters of several candidates on one base into the folder `out`, for vLLM.

    A request selects one by `PIPELINE@ALIAS` or `PIPELINE@version-N`; the champion also by `PIPELINE`.

    Raises:
        ConfigError: TG0111, they have different bases, or one is there twice; and as `export_candidate`.
        StorageError: as `export_candidate`.
    """
    modules = []
    for source, origin in zip(sources, origins, strict=True):
        own = [origin.pipeline] if "champion" in source.aliases else []
        names = [*own, *(f"{origin.pipeline}@{name}" for name in (*source.aliases, f"version-{source.version}"))]
        modules.append(Module(source, f"adapters/{origin.pipeline}-{source.version}", tuple(names)))
    folders = [module.folder for module in modules]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise ConfigError(f"{twice} is to be exported twice", code="TG0111", where="export", hint="name each once")
    out = _check_free(out)
    for source in sources:
        _check_source(source, format_of("vllm"))

    def write(folder: Path) -> tuple[ExportOrigin, ...]:
        write_vllm_together(modules, folder)
        return tuple(origins)

    return _written(out, write)


def _check_source(source: Exported, form: ExportFormat) -> None:
    source.report("check the files against what was evaluated")
    check_evaluated(source.bundle, source.trained)
    if form.reads_base and verify(source.model.root) != source.model.digest:
        raise StorageError(
            "the base model differs from the one that was trained",
            code="TG0549",
            where=str(source.model.root),
            hint="remove this folder and run the pipeline again: it is recreated",
        )


def _written(out: Path, write: Callable[[Path], tuple[ExportOrigin, ...]]) -> Export:
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    aside.mkdir(mode=0o700)
    try:
        origins = write(aside)
        listed = [origin.model_dump(mode="json") for origin in origins]
        digest = seal(aside, about={"export": listed[0]} if len(listed) == 1 else {"exports": listed})
        files = {
            path.relative_to(aside).as_posix(): path.stat().st_size
            for path in sorted(aside.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        aside.rename(out)
        sync_directory(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Export(out, digest, origins, files)


def _check_free(out: Path) -> Path:
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(
            "the folder to export into is not empty; it must be missing or empty",
            code="TG0189",
            where=str(out),
            hint="use another folder: an export never overwrites files",
        )
    return out
