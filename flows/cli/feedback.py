"""`tunegate model feedback`: what agents did with suggestions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Pipeline
from flows.cli.output import Result, TextTable, note, warn
from flows.registry.feedback import acceptance, take_in_file
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.load import load_file

SHOWN_REFUSALS = 5
"""Refused lines of feedback that are printed."""
FEEDBACK_WAIT_S = 60.0
"""An endpoint that takes feedback holds the database for moments; lines that are given up may never come again."""


@command(example="tunegate model feedback support-replies outcomes.jsonl")
def feedback(
    pipeline: Pipeline,
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines: ticket_id, version, outcome, at, reply; stdin if `-`.")
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Record what agents did with suggestions; show acceptance.

    Without a file, it only shows how often each version's suggestions were accepted.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    taken = None if file is None else take_in_file(file, spec=spec, settings=settings, wait_s=FEEDBACK_WAIT_S)
    rows = [{**each.model_dump(), "rate": each.rate} for each in acceptance(spec, settings.home)]

    def text() -> Iterator[Any]:
        if taken is not None:
            counts = f"{taken.n_new} new, {taken.n_known} known, {len(taken.refused)} refused"
            yield f"{counted(taken.n_lines, 'line')}: {counts}"
            for number, why in taken.refused[:SHOWN_REFUSALS]:
                warn(f"line {number} refused: {why}")
        shown = [{**row, **{column: f"{row[column]:.3f}" for column in ("rate", "lower", "upper")}} for row in rows]
        yield TextTable(shown, ("version", "n", "n_accepted", "rate", "lower", "upper"))
        if spec.feedback is None:
            note(f"{pipeline} declares no `feedback`: it is kept, and no run uses it")

    ingested = None if taken is None else taken.to_json()
    return Result({"name": spec.registry.name, "ingested": ingested, "versions": rows}, text())
