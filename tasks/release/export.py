"""Export a registered candidate in another program's format: a folder with a manifest, complete or missing.

The folder is written under a temporary name, compared with what the gate judged, sealed and renamed. Its MANIFEST.json
has the sha256 of every file and, as `export`, its origin and whether it was ever promoted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tasks.release.export_formats  # noqa: F401  registers them
from schemas.errors import ConfigError, StorageError
from schemas.export import ExportOrigin
from tasks.release.bundle import check_evaluated
from tasks.release.export_adapter import Module, write_vllm_together
from tasks.release.export_format import Exported, ExportFormat, format_names, format_of
from tasks.storage.sealed_folder import SealedFolder, check_free, sealed_contents, sealed_folder, verify

__all__ = ["Export", "Exported", "export_candidate", "export_together", "format_names", "format_of"]


@dataclass(frozen=True)
class Export:
    """A written export."""

    folder: SealedFolder
    origins: tuple[ExportOrigin, ...]
    """Of each candidate in it; mostly one."""


def export_candidate(source: Exported, origin: ExportOrigin, *, out: Path) -> Export:
    """Write the folder `out`, which must be missing or empty.

    Raises:
        ConfigError: TG0189, `out` is not empty; TG0185, there is no such format, or it does not support the model.
        StorageError: the candidate is damaged or differs from what was evaluated (TG0510, TG0549), results that a check
            needs are gone (TG0510), or a file reads back differently (TG0547).
        TrainingError: TG0403, a converted model does not answer like the one that the gate judged.
    """
    form = format_of(origin.format)

    out = check_free(out)

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
    out = check_free(out)
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
    about: dict[str, object] = {}
    with sealed_folder(out, mode=0o700, about=about) as folder:
        origins = write(folder)
        listed = [origin.model_dump(mode="json") for origin in origins]
        about.update({"export": listed[0]} if len(listed) == 1 else {"exports": listed})
    return Export(sealed_contents(out), origins)
