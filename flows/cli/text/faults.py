"""Why rows were removed by a curation that failed: reasons, and rows of which only a form shows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from flows.cli.output import talk
from flows.views.failed_curation import failed_curation
from flows.workspace.settings import Settings
from tasks.curate.ask import common_faults, funnel_of


def print_faults(settings: Settings, pipeline: str) -> None:
    """Print the steps of the pipeline's last run if its curation failed, and why rows are gone."""
    with TemporaryDirectory(prefix="tunegate-failed-") as folder:
        failed = failed_curation(settings, pipeline, Path(folder))
        if failed is None:
            return
        funnel = funnel_of(failed.database)
        faults = common_faults(failed.database, redactions=failed.redactions)
    steps = ", ".join(f"{row['step']} {row['n_in']:,} -> {row['n_out']:,}" for row in funnel)
    talk().print(f"rows: {steps}", markup=False, soft_wrap=True)
    for fault in faults:
        head = f"{fault['n_rows']:,} {fault['outcome']} by {fault['step']}, {fault['code']}: {fault['example']}"
        talk().print(f"  {head}", markup=False, soft_wrap=True, highlight=False)
        for where, form in fault["rows"]:
            talk().print(f"    {where}  {form}", markup=False, soft_wrap=True, highlight=False)
        if fault["step"] == "extract" and not fault["rows"]:
            talk().print("    the reader refused these rows, and no text of them is kept", markup=False)
    talk().print(f"look at them: tunegate data quarantine {pipeline}; also data funnel and sample", markup=False)
