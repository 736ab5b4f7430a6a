"""`tunegate feedback`: what agents did with suggestions comes in, each version's acceptance goes out."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows, talk
from flows.context.feedback import feedback_database, take_in
from flows.workspace.settings import Settings, load_settings
from schemas.errors import ConfigError
from schemas.feedback import FeedbackSpec
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from schemas.regular_file import open_regular
from tasks.watch.feedback import Ingested, acceptance_of, feedback_state

SHOWN = 5
"""Refused lines that are told."""
LOCK_WAIT_S = 60.0
"""An endpoint that takes feedback in holds the database for moments; lines that are given up may never come again."""


def feedback(*, pipeline: str, file: Path | None, config: Path, as_json: bool) -> int:
    """Take a file in (none: only show) and tell each version's acceptance.

    Raises:
        ConfigError: TG0164 no line can be used, TG0110 the file cannot be read.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    name = spec.registry.name
    database = feedback_database(settings.home, name)
    taken = None
    if file is not None:
        taken = _ingest(file, spec, settings)
    state = feedback_state(database)
    declared = spec.feedback or FeedbackSpec()
    rates = acceptance_of(database, declared, upto=state.last) if state else ()
    rows: list[dict[str, Any]] = [{**each.model_dump(), "rate": each.rate} for each in rates]
    if as_json:
        print_json({"name": name, "ingested": None if taken is None else taken.told(), "versions": rows})
        return 0
    if taken is not None:
        out().print(f"{taken.n_lines} lines: {taken.n_new} new, {taken.n_known} known, {len(taken.refused)} refused")
        for number, reason in taken.refused[:SHOWN]:
            talk().print(f"warning line {number} refused: {reason}", markup=False)
    shown = [{**row, **{column: f"{row[column]:.3f}" for column in ("rate", "lower", "upper")}} for row in rows]
    print_rows(shown, ("version", "n", "n_accepted", "rate", "lower", "upper"))
    if spec.feedback is None:
        talk().print(f"note {pipeline} declares no `feedback`: it is kept, and no run uses it", markup=False)
    return 0


def _ingest(file: Path, spec: PipelineSpec, settings: Settings) -> Ingested:
    source = "stdin" if str(file) == "-" else str(file)
    try:
        with nullcontext(sys.stdin.buffer) if source == "stdin" else open_regular(file) as stream:
            return take_in(stream, source=source, spec=spec, settings=settings, wait_s=LOCK_WAIT_S)
    except OSError as error:
        raise ConfigError(f"the feedback cannot be read: {error.strerror}", code="TG0110", where=source) from None
