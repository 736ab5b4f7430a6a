"""`tunegate runs`, `show` and `status`: what the ledger knows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows
from flows.engine.ledger import Ledger
from flows.engine.lock import is_locked
from flows.engine.store import Store
from flows.screen import gate_table
from flows.servers import running
from flows.settings import Settings, load_settings
from schemas.artifacts import GateDecision
from schemas.load import load_file

RUN_COLUMNS = ("run_id", "pipeline", "status", "verdict", "started_at", "exit_code", "reason")


def runs(*, pipeline: str | None, limit: int, config: Path, as_json: bool) -> int:
    """List the newest runs; those whose process is gone are marked as interrupted first."""
    ledger = _ledger(load_settings(config))
    rows = [asdict(row) for row in ledger.runs(limit=limit, pipeline=pipeline)]
    if as_json:
        print_json([{name: row[name] for name in RUN_COLUMNS} for row in rows])
    else:
        print_rows(rows, RUN_COLUMNS)
    return 0


def show(*, run_id: str, config: Path, as_json: bool) -> int:
    """One run with its steps and the gate's findings."""
    settings = load_settings(config)
    ledger = _ledger(settings)
    row = ledger.run(run_id)
    steps = ledger.steps(row.run_id)
    gate = next((step for step in steps if step.step == "gate" and step.key), None)
    decision = Store(settings.home).find("gate", gate.key, GateDecision) if gate else None
    if as_json:
        head: dict[str, Any] = {name: getattr(row, name) for name in (*RUN_COLUMNS, "mlflow_run_id", "prefect_run_id")}
        findings = [] if decision is None else [finding.model_dump() for finding in decision.findings]
        print_json({**head, "steps": [asdict(step) for step in steps], "findings": findings})
        return 0
    console = out()
    console.print(f"{row.run_id}  {row.pipeline}  {row.status}  {row.verdict or ''}\n{row.reason}\n", markup=False)
    told = [{**asdict(step), "seconds": f"{step.seconds:.1f}", "digest": step.digest[:12]} for step in steps]
    print_rows(told, ("step", "state", "n_in", "n_out", "seconds", "digest", "error"))
    if decision is not None:
        console.print()
        console.print(gate_table(decision))
    return 0


def status(*, config: Path, as_json: bool) -> int:
    """Running pipelines, champions, servers, and what MLflow has still to be told."""
    settings = load_settings(config)
    ledger = _ledger(settings)
    holders = {name: is_locked(settings.home, name) for name in sorted(load_file(config).pipelines)}
    report = {
        "home": str(settings.home),
        "running": [{"pipeline": name, "run_id": held.run, "pid": held.pid} for name, held in holders.items() if held],
        "champions": [
            {"name": champion.name, "version": champion.version, "since": champion.promoted_at}
            for champion in ledger.champions()
        ],
        "servers": [{"kind": server.kind, "url": server.url, "pid": server.pid} for server in running(settings.home)],
        "mlflow_pending": len(ledger.pending_projections()),
    }
    if as_json:
        print_json(report)
        return 0
    console = out()
    console.print(f"home           {settings.home}")
    for run in report["running"] or [{"pipeline": "nothing"}]:
        told = f"run {run['run_id']}, pid {run['pid']}" if "pid" in run else ""
        console.print(f"running        {run['pipeline']} {told}")
    for champion in report["champions"] or [{"name": "none"}]:
        since = f"v{champion['version']} since {champion['since']}" if "version" in champion else ""
        console.print(f"champion       {champion['name']} {since}")
    for server in report["servers"] or [{"kind": "none; `tunegate up` starts them"}]:
        console.print(f"server         {server['kind']} {server.get('url', '')}")
    if report["mlflow_pending"]:
        console.print(f"MLflow         {report['mlflow_pending']} changes not told yet; `tunegate sync`")
    return 0


def _ledger(settings: Settings) -> Ledger:
    ledger = Ledger(settings.home)
    ledger.mark_interrupted()
    return ledger
