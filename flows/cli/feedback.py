"""`tunegate model feedback`: what agents did with suggestions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Pipeline
from flows.cli.output import Result, TextTable, note, warn
from flows.ledger.open import open_ledger
from flows.registry.feedback import acceptance, routed, take_in_file
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

    Without a file, it only shows how often each version's suggestions were accepted, and how often the labels of its
    routed tickets were right in each week.
    """
    spec, settings = load_file(config).get(pipeline), load_settings(config)
    taken = None if file is None else take_in_file(file, spec=spec, settings=settings, wait_s=FEEDBACK_WAIT_S)
    rows = [{**each.model_dump(), "rate": each.rate} for each in acceptance(spec, settings.home)]
    watched = routed(spec.registry.name, spec.feedback, settings, open_ledger(settings))

    def text() -> Iterator[Any]:
        if taken is not None:
            counts = f"{taken.n_new} new, {taken.n_known} known, {len(taken.refused)} refused"
            yield f"{counted(taken.n_lines, 'line')}: {counts}"
            for number, why in taken.refused[:SHOWN_REFUSALS]:
                warn(f"line {number} refused: {why}")
        shown = [{**row, **{column: f"{row[column]:.3f}" for column in ("rate", "lower", "upper")}} for row in rows]
        yield TextTable(shown, ("version", "n", "n_accepted", "rate", "lower", "upper"))
        for version in watched:
            weeks = [
                {
                    "version": version.version, "week": week.monday, "routed": week.n, "right": week.n_right,
                    "rate": f"{week.n_right / week.n:.3f}", "lower": f"{week.lower:.3f}", "upper": f"{week.upper:.3f}",
                }
                for week in version.weeks
            ]  # fmt: skip
            yield ""
            yield TextTable(weeks)
            if not version.holds:
                warn(version.warning())
        if spec.feedback is None:
            note(f"{pipeline} declares no `feedback`: it is kept, and no run uses it")

    ingested = None if taken is None else taken.to_json()
    of_routed = [each.model_dump(mode="json") for each in watched]
    return Result({"name": spec.registry.name, "ingested": ingested, "versions": rows, "routed": of_routed}, text())
