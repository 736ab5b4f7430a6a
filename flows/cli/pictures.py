"""The picture that `tunegate graph` draws: of what a run would do now, or of a recorded run. Reads only."""

from pathlib import Path

from flows.context.run_picture import read_picture
from flows.graph.draw import picture_of_plan
from flows.ledger.opened import open_ledger
from flows.run.planned_run import plan_pipeline
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError
from schemas.graph_picture import GraphPicture
from schemas.load import load_file


def picture_of_now(pipeline: str, config: Path) -> GraphPicture:
    """The pipeline's graph as a run would find it now."""
    found = plan_pipeline(pipeline, config)
    return picture_of_plan(found.pipeline.graph, found.nodes, found.seconds)


def picture_of_run(pipeline: str, run_id: str, config: Path) -> GraphPicture:
    """The graph as the run left it.

    Raises:
        ConfigError: TG0139, the run is of another pipeline; TG0151, no such run or several; TG0159, it kept no graph.
    """
    name, settings = load_file(config).get(pipeline).name, load_settings(config)
    row = open_ledger(settings).run(run_id)
    if row.pipeline != name:
        raise ConfigError(
            f"run {row.run_id} is of pipeline {row.pipeline}", code="TG0139", where="--run",
            hint=f"tunegate graph {row.pipeline} --run {row.run_id}",
        )  # fmt: skip
    picture = read_picture(settings.home, row.run_id)
    if picture is None:
        why = "it has not come so far" if row.status == "RUNNING" else "it was killed, or an earlier version made it"
        raise ConfigError(
            f"run {row.run_id} kept no graph: {why}", code="TG0159", where="--run",
            hint=f"`tunegate show {row.run_id}` lists its steps; `tunegate graph {name}` draws what a run would do now",
        )  # fmt: skip
    return picture
