"""The graph of a recorded run, in `HOME/runs/RUN-graph.json`: written when the run reports and when it closes."""

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from flows.context.run_context import RunContext
from flows.graph.draw import picture_of_run
from flows.graph.execute import Run
from flows.workspace.disk import private_folder, write_private
from schemas.report import GraphPicture


def picture_file(home: Path, run_id: str) -> Path:
    return home / "runs" / f"{run_id}-graph.json"


def picture_now(context: RunContext, run: Run) -> GraphPicture:
    """Return the state of each node so far, with the errors in the ledger."""
    steps = context.ledger.steps(context.run_id)
    return picture_of_run(run, failed={row.step: row.error for row in steps if row.error})


def keep_picture(run: RunContext, *, ending: Collection[str] = ()) -> None:
    """Write the run's graph, if there is one yet. A failure is only noted.

    Args:
        ending: Names of the nodes that are still running while it is written; the picture shows them as made.
    """
    if run.picture is None:
        return
    try:
        text = run.picture().with_made(ending).model_dump_json(indent=2)
        path = picture_file(run.settings.home, run.run_id)
        private_folder(path.parent)
        write_private(path, f"{text}\n")
    except Exception as error:  # its text may quote a ticket
        run.listeners.noted(f"the picture of the run's graph was not written ({type(error).__name__})")


def read_picture(home: Path, run_id: str) -> GraphPicture | None:
    """Return the graph of a recorded run; None if there is none that this version can read."""
    try:
        return GraphPicture.model_validate_json(picture_file(home, run_id).read_bytes())
    except (OSError, ValidationError):
        return None
