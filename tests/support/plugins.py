"""Packages that add kinds to tunegate, as an installer leaves them."""

from pathlib import Path


def install(folder: Path, *, version: str = "1.0", **points: str) -> None:
    """Describe the modules of the folder as the package `acme-tickets` with entry points of these groups."""
    info = folder / f"acme_tickets-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-tickets\nVersion: {version}\n")
    groups = (f"[tunegate.{group}]\n{lines}\n" for group, lines in points.items())
    (info / "entry_points.txt").write_text("".join(groups))
