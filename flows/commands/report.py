"""`tunegate report`: a run as one page, and as JSON, a comment and a JUnit file beside it."""

from __future__ import annotations

from pathlib import Path

from flows.commands.output import out, print_json
from flows.ledger.opened import open_ledger
from flows.views.report import gather, report_folder, write_report
from flows.workspace.settings import Settings, load_settings
from schemas.errors import ConfigError
from tasks.files import write_atomic


def report(
    *, run_id: str | None, last: str | None, out_file: Path | None, n_items: int, config: Path, as_json: bool
) -> int:
    """Write the report of one run.

    Raises:
        ConfigError: TG0139, not one of run and pipeline is named, or the pipeline has no run with a verdict.
    """
    settings = load_settings(config)
    if (run_id is None) == (last is None):
        raise ConfigError(
            "which run? give one RUN, or --last PIPELINE",
            code="TG0139",
            where="report",
            hint="`tunegate runs` lists them",
        )
    told, card = gather(settings, run_id or _last(settings, str(last)), n_items=n_items)
    files = write_report(told, card, report_folder(settings.home, told.run_id))
    page = files["report.html"]
    if out_file is not None:
        write_atomic(out_file, page.read_bytes())
        page = out_file
    if as_json:
        print_json(told.model_dump(mode="json"))
    else:
        out().print(f"{told.verdict}  {told.sentence}\n{page}", markup=False, soft_wrap=True)
    return 0


def _last(settings: Settings, pipeline: str) -> str:
    found = next((row for row in open_ledger(settings).runs(limit=1000, pipeline=pipeline) if row.verdict), None)
    if found is None:
        raise ConfigError(
            f"pipeline {pipeline!r} has no run with a verdict", code="TG0139", where="--last",
            hint="`tunegate runs` lists all runs; give the id of one",
        )  # fmt: skip
    return found.run_id
