"""`tunegate status` and `tunegate runs`: what the ledger and the servers say now."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, RUN_COLUMNS, Config, complete_pipeline
from flows.cli.output import Result, TextTable
from flows.ledger.open import open_ledger
from flows.workspace.servers import running, users_homes
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.load import load_file


@command(example="tunegate status --json")
def status(config: Config = CONFIG) -> Result:
    """Show what is running, who is champion and which servers are up."""
    settings = load_settings(config)
    ledger = open_ledger(settings)
    ledger.mark_interrupted()
    holders = {name: ledger.holder_of(name) for name in sorted(load_file(config).pipelines)}
    events = [event for name in ledger.names() for event in ledger.waiting(name)]
    found = running(settings.home, *users_homes(settings.state))
    state = {
        "home": str(settings.home),
        "running": [
            {"pipeline": name, "run_id": held.run, "pid": str(held.pid)} for name, held in holders.items() if held
        ],
        "champions": [{"name": c.name, "version": c.version, "since": c.promoted_at} for c in ledger.champions()],
        "waiting": [{"name": e.name, "version": e.to_version, "run_id": e.run_id, "why": e.reason} for e in events],
        "servers": [{"kind": server.kind, "url": server.url, "pid": str(server.pid)} for server in found],
        "mlflow_pending": len(ledger.pending_projections()),
    }
    return Result(state, (f"{name:<10} {text}" for name, text in _lines(state)))


def _lines(state: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "home", state["home"]
    shown = {
        "running": [f"{each['pipeline']}  run {each['run_id']}, pid {each['pid']}" for each in state["running"]],
        "champion": [f"{each['name']} v{each['version']} since {each['since']}" for each in state["champions"]],
        "waiting": [
            f"{each['name']} v{each['version']}: {each['why']}; `tunegate model approve {each['run_id']} --by NAME`"
            for each in state["waiting"]
        ],
        "server": [f"{each['kind']} {each['url']}" for each in state["servers"]],
    }
    yield from ((name, text) for name, texts in shown.items() for text in texts)
    if state["mlflow_pending"]:
        yield "MLflow", f"sync pending: {counted(state['mlflow_pending'], 'change')}; `tunegate ops reconcile`"
    yield from ((name, "none") for name in ("running", "champion", "server") if not shown[name])


@command(example="tunegate runs support-replies --limit 5")
def runs(
    pipeline: Annotated[
        str | None, typer.Argument(help="Only this pipeline.", show_default=False, autocompletion=complete_pipeline)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows shown at most.")] = 20,
    config: Config = CONFIG,
) -> Result:
    """List runs, newest first."""
    ledger = open_ledger(load_settings(config))
    ledger.mark_interrupted()
    rows = [
        {name: getattr(row, name) for name in (*RUN_COLUMNS, "as_of")}
        for row in ledger.runs(limit=limit, pipeline=pipeline)
    ]
    dated = any(row["as_of"] for row in rows)
    columns = (*RUN_COLUMNS[:4], "as_of", *RUN_COLUMNS[4:]) if dated else RUN_COLUMNS
    return Result({"runs": rows}, [TextTable(rows, columns)])
