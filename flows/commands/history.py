"""`tunegate runs`, `show` and `status`: what the ledger knows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows
from flows.context.timings import memory_sentence, read_measured
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger
from flows.run.console import gate_table
from flows.views.run_reader import Recorded
from flows.views.selection_report import CHOICE_COLUMNS, choice_json, choice_of, choice_row
from flows.views.tick_report import tick_json, tick_lines
from flows.workspace.servers import running
from flows.workspace.settings import Settings, load_settings
from schemas.load import load_file

RUN_COLUMNS = ("run_id", "pipeline", "status", "verdict", "started_at", "exit_code", "reason")


def runs(*, pipeline: str | None, limit: int, config: Path, as_json: bool) -> int:
    """List the newest runs; those whose process is gone are marked as interrupted first."""
    ledger = _ledger(load_settings(config))
    rows = [asdict(row) for row in ledger.runs(limit=limit, pipeline=pipeline)]
    if as_json:
        print_json({"runs": [{name: row[name] for name in RUN_COLUMNS} for row in rows]})
    else:
        print_rows(rows, RUN_COLUMNS)
    return 0


def show(*, run_id: str, config: Path, as_json: bool) -> int:
    """One run with its steps, the trainings it chose from and the gate's findings."""
    settings = load_settings(config)
    ledger = _ledger(settings)
    recorded = Recorded(settings, run_id)
    row, steps, decision = recorded.row, recorded.steps, recorded.decision()
    chosen = choice_of(ledger, recorded.store, row.run_id)
    memory = read_measured(settings, "train", recorded.keys["train"]) if "train" in recorded.keys else {}
    tick, mark = ledger.tick_of(row.run_id), ledger.mark_of(row.run_id)
    if as_json:
        head: dict[str, Any] = {name: getattr(row, name) for name in (*RUN_COLUMNS, "mlflow_run_id", "prefect_run_id")}
        findings = [] if decision is None else [finding.model_dump() for finding in decision.findings]
        choice = None if chosen is None else choice_json(*chosen)
        told_steps = [asdict(step) for step in steps]
        made = {"tick": tick and tick_json(tick), "snapshot": mark and asdict(mark)}
        print_json({**head, "steps": told_steps, "findings": findings, "choice": choice, **memory, **made})
        return 0
    console = out()
    console.print(f"{row.run_id}  {row.pipeline}  {row.status}  {row.verdict or ''}\n{row.reason}\n", markup=False)
    for line in tick_lines(tick, mark):
        console.print(line, markup=False, soft_wrap=True)
    told = [{**asdict(step), "seconds": f"{step.seconds:.1f}", "digest": step.digest[:12]} for step in steps]
    print_rows(told, ("step", "state", "n_in", "n_out", "seconds", "digest", "error"))
    if told_memory := memory_sentence(memory):
        console.print(f"\nmemory of training: {told_memory}", markup=False)
    if chosen is not None:
        console.print(f"\nchosen on validation: {chosen[0].why}", markup=False, soft_wrap=True)
        print_rows([choice_row(trial, chosen[1]) for trial in chosen[0].rows], CHOICE_COLUMNS)
    if decision is not None:
        console.print()
        console.print(gate_table(decision))
    return 0


def status(*, config: Path, as_json: bool) -> int:
    """Running pipelines, champions, servers, and what MLflow has still to be told."""
    settings = load_settings(config)
    ledger = _ledger(settings)
    holders = {name: ledger.holder_of(name) for name in sorted(load_file(config).pipelines)}
    busy = [{"pipeline": name, "run_id": held.run, "pid": str(held.pid)} for name, held in holders.items() if held]
    champions = [{"name": c.name, "version": c.version, "since": c.promoted_at} for c in ledger.champions()]
    events = [event for name in ledger.names() for event in ledger.waiting(name)]
    waiting = [{"name": e.name, "version": e.to_version, "run_id": e.run_id, "why": e.reason} for e in events]
    servers = [{"kind": server.kind, "url": server.url, "pid": str(server.pid)} for server in running(settings.home)]
    pending = len(ledger.pending_projections())
    if as_json:
        print_json(
            {
                "home": str(settings.home),
                "running": busy,
                "champions": champions,
                "waiting": waiting,
                "servers": servers,
                "mlflow_pending": pending,
            }
        )
        return 0
    lines = [("home", str(settings.home))]
    lines += [("running", f"{run['pipeline']}  run {run['run_id']}, pid {run['pid']}") for run in busy]
    lines += [
        ("champion", f"{champion['name']} v{champion['version']} since {champion['since']}") for champion in champions
    ]
    lines += [
        ("waiting", f"{one['name']} v{one['version']}: {one['why']}; `tunegate approve {one['run_id']} --by NAME`")
        for one in waiting
    ]
    lines += [("server", f"{server['kind']} {server['url']}") for server in servers]
    lines += [("MLflow", f"sync pending: {pending} changes not told; `tunegate reconcile`")] if pending else []
    for name in ("running", "champion", "server"):
        if name not in dict(lines):
            lines.append((name, "none"))
    for name, told in lines:
        out().print(f"{name:<10} {told}", markup=False)
    return 0


def _ledger(settings: Settings) -> Ledger:
    ledger = open_ledger(settings)
    ledger.mark_interrupted()
    return ledger
