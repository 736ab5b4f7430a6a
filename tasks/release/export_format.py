"""Declare a function as a format of `tunegate model export`; see `export_adapter.py`.

    @export_format("card", reads_base=False)
    def write_card(source: Exported, out: Path) -> dict[str, float]:
        (out / "CARD.md").write_text(f"trained by {source.trained.method}\n", encoding="utf-8")
        return {}

The function fills an empty folder and returns its measurements, which are added to the manifest. `export.py` seals the
folder and moves it into place. `export_formats.py` lists the formats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from schemas.artifacts import BundleRef, DatasetRef, ModelRef, PromptSet, Splits, TrainedRef
from schemas.errors import ConfigError, StorageError
from schemas.names import nearest
from tasks.progress import silent_report

Stored = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Exported:
    """The files of a candidate. Those that a format does not need may be None."""

    model: ModelRef
    trained: TrainedRef
    bundle: BundleRef
    prompts: PromptSet | None = None
    """Held-out prompts with their answers, to compare a converted model."""
    dataset: DatasetRef | None = None
    splits: Splits | None = None
    aliases: tuple[str, ...] = ()
    """Names by which it is currently served."""
    version: str = ""
    """Of the registered model."""
    verdict: str = ""
    """The gate's last verdict on it, with its reason."""
    stored: Stored = "bfloat16"
    """Type of whole weights."""
    target: Path | None = None
    """Where the export will be once it is complete."""
    report: Callable[[str], None] = silent_report
    """Called with what is done now, in words."""


class Write(Protocol):
    """Fills the empty folder `out`; returns measurements."""

    def __call__(self, source: Exported, out: Path) -> dict[str, float]: ...


@dataclass(frozen=True)
class ExportFormat:
    """How a format is written."""

    name: str
    write: Write
    reads_base: bool
    """The base model's files are read, so they are first compared with their digest."""
    holds_tickets: bool
    """The files have ticket text, so only a redacted training set is written."""


_FORMATS: dict[str, ExportFormat] = {}


def export_format(name: str, *, reads_base: bool = True, holds_tickets: bool = False) -> Callable[[Write], Write]:
    """Register a function as the format of this name; options as in `ExportFormat`.

    Raises:
        ValueError: another function has the name.
    """

    def register(write: Write) -> Write:
        if name in _FORMATS:
            raise ValueError(f"there is an export format {name!r} already")
        _FORMATS[name] = ExportFormat(name, write, reads_base, holds_tickets)
        return write

    return register


def format_names() -> tuple[str, ...]:
    """The names of all formats."""
    return tuple(_FORMATS)


def format_of(name: str) -> ExportFormat:
    """The format of this name.

    Raises:
        ConfigError: TG0185, there is none.
    """
    if name not in _FORMATS:
        raise ConfigError(
            f"no export format {name!r}; allowed: {', '.join(_FORMATS)}",
            code="TG0185",
            where="export --format",
            hint=nearest(name, _FORMATS) or f"`--format {next(iter(_FORMATS))}`",
        )
    return _FORMATS[name]


def gone(what: str) -> StorageError:
    """The error of a format that needs a result which is no longer in the store."""
    return StorageError(
        f"{what} of this run is no longer in the store",
        code="TG0510",
        where="store",
        hint="`tunegate run PIPELINE --again` recomputes the results",
    )
