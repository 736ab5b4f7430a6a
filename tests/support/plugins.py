"""Packages that add kinds to tunegate, as an installer leaves them."""

from pathlib import Path

from schemas.curation_steps import CURATION_STEPS
from schemas.gates import GATE_SECTIONS
from schemas.metrics import METRICS
from tasks.assess import check, metric
from tasks.curate import step
from tasks.release import export_format


def install(folder: Path, *, version: str = "1.0", **points: str) -> None:
    """Describe the modules of the folder as the package `acme-tickets` with entry points of these groups."""
    info = folder / f"acme_tickets-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-tickets\nVersion: {version}\n")
    groups = (f"[tunegate.{group}]\n{lines}\n" for group, lines in points.items())
    (info / "entry_points.txt").write_text("".join(groups))


def remove(*, steps: str = "", metrics: str = "", checks: str = "", exports: str = "") -> None:
    """Remove a kind of each, as if its module had not been imported."""
    if steps:
        del step._KINDS[CURATION_STEPS[steps]]
        CURATION_STEPS.remove(steps)
    if metrics:
        del metric._KINDS[METRICS[metrics]]
        METRICS.remove(metrics)
    if checks:
        del check._CHECKS[checks]
        GATE_SECTIONS.remove(checks)
    if exports:
        del export_format._FORMATS[exports]
