"""The graph of a recorded run, in `HOME/runs/RUN-graph.json`: written when it reports and when it closes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from flows.context.run_context import RunContext
from flows.graph.draw import picture_of_run
from flows.graph.execute import Run
from flows.workspace.disk import private_folder
from schemas.graph_picture import GraphPicture
from tasks.files import write_atomic


def picture_file(home: Path, run_id: str) -> Path:
    """Where a run's graph lies."""
    return home / "runs" / f"{run_id}-graph.json"


def picture_now(context: RunContext, run: Run) -> GraphPicture:
    """What became of each node so far, with the errors that the ledger has."""
    steps = context.ledger.steps(context.run_id)
    return picture_of_run(run, failed={row.step: row.error for row in steps if row.error})


def keep_picture(run: RunContext, *, ending: Collection[str] = ()) -> None:
    """Write the run's graph; where there is none yet, nothing. What goes wrong is noted and changes nothing.

    Args:
        ending: Names of the nodes that are being made while it is written; the picture shows them as made.
    """
    if run.picture is None:
        return
    try:
        text = run.picture().with_made(ending).model_dump_json(indent=2)
        path = picture_file(run.settings.home, run.run_id)
        private_folder(path.parent)
        write_atomic(path, text.encode() + b"\n")
        path.chmod(0o600)
    except Exception as error:  # its words may quote a ticket
        run.listeners.noted(f"the picture of the run's graph was not written ({type(error).__name__})")


def read_picture(home: Path, run_id: str) -> GraphPicture | None:
    """The graph of a recorded run; None where it has none, or none that this version reads."""
    try:
        return GraphPicture.model_validate_json(picture_file(home, run_id).read_bytes())
    except (OSError, ValidationError):
        return None
