"""An export for people."""

from __future__ import annotations

from pathlib import Path

from flows.cli.output import note, out, print_rows, warn
from schemas.export import ExportOrigin
from tasks.release.export import Export


def warn_of_standing(origin: ExportOrigin) -> None:
    """A line on stderr about a version that the gate did not let in."""
    name = f"{origin.name} v{origin.version}"
    if not origin.promoted:
        warn(f"{name} was never promoted (verdict {origin.verdict}): the manifest says so; do not put it into service")
    elif origin.let_in_by == "force":
        note(f"{name} was promoted past the gate")


def print_export(done: Export, signature: Path | None) -> None:
    """The files and their digest."""
    for origin in done.origins:
        where = f"{origin.name} v{origin.version} ({origin.standing}) as {origin.format}: {done.root}"
        out().print(where, markup=False)
    print_rows([{"file": name, "bytes": f"{size:,}"} for name, size in done.files.items()], ("file", "bytes"))
    measured = {name: value for origin in done.origins for name, value in origin.checked.items()}
    checked = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
    out().print(f"sha256 of the manifest's files: {done.digest}" + (f"\nchecked: {checked}" if checked else ""))
    if signature is not None:
        out().print(f"signed: {signature}", markup=False)
