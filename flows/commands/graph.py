"""`tunegate graph`: a pipeline's graph as a run would find it now, or as a recorded run left it; writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.commands.output import out, print_json, talk, write
from flows.context.run_picture import read_picture
from flows.graph.draw import as_mermaid, as_text, picture_of_plan
from flows.ledger.opened import open_ledger
from flows.run.planned_run import plan_pipeline
from flows.workspace.settings import load_settings
from schemas.errors import ConfigError
from schemas.graph_picture import GraphPicture
from schemas.load import load_file


def graph(*, pipeline: str, run_id: str | None, as_mermaid_text: bool, config: Path, as_json: bool) -> int:
    """Print the graph as text, as Mermaid or as JSON.

    Raises:
        ConfigError: TG0139, both forms are asked for, or the run is of another pipeline; TG0151, no such run or
            several; TG0159, the run kept no graph.
    """
    if as_mermaid_text and as_json:
        raise ConfigError(
            "one form at a time: --mermaid or --json", code="TG0139", where="graph", hint="tunegate graph --help"
        )
    if run_id is None:
        found = plan_pipeline(pipeline, config)
        picture = picture_of_plan(found.pipeline.graph, found.nodes, found.seconds)
    else:
        picture = _of_run(pipeline, run_id, config)
    if as_json:
        print_json(picture.to_json())
    elif as_mermaid_text:
        write(as_mermaid(picture), sys.stdout)
    else:
        write(as_text(picture, width=out().width) + "\n", sys.stdout)
        talk().print(_counts(picture), markup=False)
    return 0


def _of_run(pipeline: str, run_id: str, config: Path) -> GraphPicture:
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


def _counts(picture: GraphPicture) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in picture.counts().items())
    return f"{len(picture.nodes)} nodes: {counts}"
