"""`tunegate sbom`: what a release, or the model of a run, is made of."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from flows.bill import NAME, bill_of_release
from flows.report import report_folder
from flows.settings import load_settings, open_ledger
from schemas.errors import SecurityError


def sbom(*, run_id: str | None, config: Path) -> int:
    """Print CycloneDX JSON: the run's, as it was written then, or this release's.

    Raises:
        SecurityError: TG0828, the run left none.
    """
    if run_id is None:
        told = orjson.dumps(bill_of_release(), option=orjson.OPT_INDENT_2) + b"\n"
    else:
        settings = load_settings(config)
        found = open_ledger(settings).run(run_id).run_id
        path = report_folder(settings.home, found) / NAME
        try:
            told = path.read_bytes()
        except OSError:
            raise SecurityError(
                f"run {found} has no bill of materials: it came to no verdict, or its report was removed",
                code="TG0828",
                where=str(path),
                hint="what is installed today says nothing of that day; `tunegate run PIPELINE --again` leaves one",
            ) from None
    sys.stdout.write(told.decode())
    return 0
